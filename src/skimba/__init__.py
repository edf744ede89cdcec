"""skimba: token pruning for vision state space models.

What stands here is imported when it is first used, so that ``import skimba`` takes no time of its own. Operators are known to
torch and models to timm (``timm.create_model("vim_micro")``) once these libraries and skimba are imported, in whatever order.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skimba.runtime.imports import after_import
from skimba.runtime.version import VERSION as __version__

if TYPE_CHECKING:
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
        refit,
        unprune,
    )
    from skimba.quantization import quantize
    from skimba.store import create_model
    from skimba.store.publish import load_model, save_model
    from skimba.tokens import DECAY, HOLD, NONE, Alignment

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
    "__version__",
    "count_flops",
    "create_model",
    "export",
    "list_models",
    "load_checkpoint",
    "load_model",
    "mask_rcnn",
    "prune",
    "quantize",
    "refit",
    "save_model",
    "selective_scan",
    "unprune",
    "upernet",
]
# Where each name is: the folder whose face has it.
_HOME = {
    "Alignment": "tokens",
    "Count": "pruning",
    "DECAY": "tokens",
    "Drop": "pruning",
    "Flops": "pruning",
    "HOLD": "tokens",
    "Hybrid": "pruning",
    "METHODS": "pruning",
    "MaskRCNN": "dense",
    "Merge": "pruning",
    "Method": "pruning",
    "Milliseconds": "pruning",
    "NONE": "tokens",
    "OfFirst": "pruning",
    "Pairs": "pruning",
    "PlainMamba": "models",
    "Remove": "pruning",
    "Speedup": "pruning",
    "UperNet": "dense",
    "VisionMamba": "models",
    "count_flops": "cost.flops",
    "create_model": "store",
    "list_models": "models",
    "load_checkpoint": "models",
    "load_model": "store",
    "mask_rcnn": "dense",
    "prune": "pruning",
    "quantize": "quantization",
    "refit": "pruning",
    "save_model": "store",
    "selective_scan": "ops",
    "unprune": "pruning",
    "upernet": "dense",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"skimba.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if not name.startswith("_"):
        try:
            return import_module(f"skimba.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"skimba.{name}":
                raise
    raise AttributeError(f"module 'skimba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


after_import("torch", lambda: import_module("skimba.ops"))
after_import("timm", lambda: import_module("skimba.models"))
