"""Which tokens go, what becomes of them, and after which blocks."""

from skimba.pruning.importance import IMPORTANCE
from skimba.pruning.likeness import LIKENESS
from skimba.pruning.presets import PRESETS, Method
from skimba.pruning.pruner import Pruner, prune
from skimba.pruning.reduction import DISORDERS, OWNER, PAIRS, REDUCTION, Stage
from skimba.pruning.schedule import STAGES, paper_schedule, stage_count
from skimba.pruning.selection import SELECTION

__all__ = [
    "DISORDERS",
    "IMPORTANCE",
    "LIKENESS",
    "OWNER",
    "PAIRS",
    "PRESETS",
    "REDUCTION",
    "SELECTION",
    "STAGES",
    "Method",
    "Pruner",
    "Stage",
    "paper_schedule",
    "prune",
    "stage_count",
]
