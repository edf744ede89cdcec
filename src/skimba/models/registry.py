"""The models by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from skimba.models.base import TokenModel
from skimba.models.checkpoint import load_checkpoint


def named_model(name: str, pretrained: bool = False, checkpoint: str | Path | None = None, **sizes: Any) -> TokenModel:
    """A dense model by name; see :func:`skimba.create_model`."""
    if name not in list_models():
        raise ValueError(f"unknown model {name!r}; known: {', '.join(list_models())}")
    if pretrained and checkpoint is not None:
        raise ValueError("give pretrained=True or checkpoint=PATH, not both")
    model: TokenModel = timm.models.model_entrypoint(name)(pretrained=pretrained, **sizes)
    model.pretrained_cfg |= {"architecture": name, "sizes": sizes}
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, reset_head="num_classes" in sizes)
    return model


def list_models() -> list[str]:
    """Names that :func:`create_model` knows."""
    return sorted(timm.list_models(module="vim") + timm.list_models(module="plain_mamba"))
