"""skimba: token pruning for vision state space models."""

from skimba.cost.flops import count_flops
from skimba.dense import MaskRCNN, UperNet, mask_rcnn, upernet
from skimba.models import PlainMamba, VisionMamba, list_models, load_checkpoint
from skimba.ops import selective_scan
from skimba.pruning import prune
from skimba.store import create_model
from skimba.store.publish import load_model, save_model

__version__ = "0.1.0"

__all__ = [
    "MaskRCNN",
    "PlainMamba",
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
    "upernet",
]
