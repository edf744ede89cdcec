"""What stands in an exported file beside the program, as JSON: a caller needs no skimba to know how to prepare pictures."""

from __future__ import annotations

import json
from typing import Any

import torch

from skimba.models import TokenModel
from skimba.pruning import Pruner
from skimba.runtime.version import VERSION

KEY = "skimba"
FORMAT = "skimba export 1"
INPUT = ("mean", "std", "crop_pct", "interpolation")  # of pretrained_cfg


def describe(model: TokenModel, batch: int | None, dtype: torch.dtype) -> dict[str, str]:
    """``{"skimba": JSON}`` with the keys

    - ``format``, ``skimba``, ``torch``: versions;
    - ``model``: its name, null if it was not made by name; ``prune``: the pruning as ``skimba.prune`` takes it back, in words
      where it has a function of the user's own, null if dense;
    - ``images``: ``shape`` (channels, height, width; of clips channels, frames, height, width), ``batch`` (null: any), ``dtype``,
      and how pictures are prepared, as far as the model knows: ``mean`` and ``std`` of each channel, on 0 … 1, ``crop_pct``,
      ``interpolation``;
    - ``classes``: their names, empty if unknown; ``num_classes``.
    """
    config = model.pretrained_cfg
    images = {
        "shape": list(model.input_shape()),
        "batch": batch,
        "dtype": str(dtype).removeprefix("torch."),
        **{key: config[key] for key in INPUT if key in config},
    }
    content = {
        "format": FORMAT,
        "skimba": VERSION,
        "torch": torch.__version__,
        "model": config.get("architecture"),
        "prune": _pruning(model),
        "images": images,
        "num_classes": model.num_classes,
        "classes": list(config.get("label_names") or ()),
    }
    return {KEY: json.dumps(content)}


def _pruning(model: TokenModel) -> dict[str, Any] | str | None:
    reducer = model.reducer
    if not isinstance(reducer, Pruner):
        return None if reducer is None else str(reducer)
    return str(reducer) if reducer.method.part.functions else reducer.to_dict()
