"""Which tokens go, what becomes of them, and after which blocks."""

from skimba.pruning.by_score import Drop, Hybrid, Merge
from skimba.pruning.calibration import Measured, OutOfReachError
from skimba.pruning.likeness import LIKENESS
from skimba.pruning.method import METHODS, Method
from skimba.pruning.owners import OWNER
from skimba.pruning.pairs import WALK, Pairs
from skimba.pruning.partners import PARTNERS
from skimba.pruning.pruner import Pruner
from skimba.pruning.reduction import Reduction, Stage
from skimba.pruning.refit import refit
from skimba.pruning.schedule import (
    COUNTS,
    STAGES,
    Count,
    OfFirst,
    Remove,
    Share,
    paper_schedule,
    stage_count,
)
from skimba.pruning.scores import SCORE
from skimba.pruning.selection import SELECTION
from skimba.pruning.settings import ARGUMENTS, read_settings
from skimba.pruning.targets import Flops, Milliseconds, Speedup, Target, read_target
from skimba.pruning.verbs import prune, unprune

__all__ = [
    "ARGUMENTS",
    "COUNTS",
    "LIKENESS",
    "METHODS",
    "OWNER",
    "PARTNERS",
    "SCORE",
    "SELECTION",
    "STAGES",
    "WALK",
    "Count",
    "Drop",
    "Flops",
    "Hybrid",
    "Measured",
    "Merge",
    "Method",
    "Milliseconds",
    "OfFirst",
    "OutOfReachError",
    "Pairs",
    "Pruner",
    "Reduction",
    "Remove",
    "Share",
    "Speedup",
    "Stage",
    "Target",
    "paper_schedule",
    "prune",
    "read_settings",
    "read_target",
    "refit",
    "stage_count",
    "unprune",
]
