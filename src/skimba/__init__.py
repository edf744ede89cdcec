"""skimba: token pruning for vision state space models."""

from skimba.cost.flops import count_flops
from skimba.dense import MaskRCNN, UperNet, mask_rcnn, upernet
from skimba.models import PlainMamba, VisionMamba, list_models, load_checkpoint
from skimba.ops import selective_scan
from skimba.pruning import (
    METHODS,
    Count,
    Drop,
    Flops,
    Hybrid,
    Merge,
    Method,
    Milliseconds,
    OfFirst,
    Pairs,
    Remove,
    Speedup,
    prune,
    unprune,
)
from skimba.store import create_model
from skimba.store.publish import load_model, save_model
from skimba.tokens import DECAY, HOLD, NONE, Alignment

__version__ = "0.1.0"

__all__ = [
    "DECAY",
    "HOLD",
    "METHODS",
    "NONE",
    "Alignment",
    "Count",
    "Drop",
    "Flops",
    "Hybrid",
    "MaskRCNN",
    "Merge",
    "Method",
    "Milliseconds",
    "OfFirst",
    "Pairs",
    "PlainMamba",
    "Remove",
    "Speedup",
    "UperNet",
    "VisionMamba",
    "count_flops",
    "create_model",
    "list_models",
    "load_checkpoint",
    "load_model",
    "mask_rcnn",
    "prune",
    "save_model",
    "selective_scan",
    "unprune",
    "upernet",
]
