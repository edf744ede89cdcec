"""Which tokens go, what becomes of them, and after which blocks."""

from skimba.pruning.importance import IMPORTANCE
from skimba.pruning.presets import PRESETS, Method, paper_schedule
from skimba.pruning.pruner import Pruner, prune, stage_count, trace, with_reducer
from skimba.pruning.reduction import OWNER, REDUCTION, Stage

__all__ = [
    "IMPORTANCE",
    "OWNER",
    "PRESETS",
    "REDUCTION",
    "Method",
    "Pruner",
    "Stage",
    "paper_schedule",
    "prune",
    "stage_count",
    "trace",
    "with_reducer",
]
