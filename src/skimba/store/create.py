"""From a name, or a file of save_model, to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skimba.models import TokenModel
from skimba.models.registry import named_model
from skimba.store.publish import load_model


def create_model(
    name: str | None = None, pretrained: bool = False, checkpoint: str | Path | None = None, **sizes: Any
) -> TokenModel:
    """A model by name, or the one that a file of :func:`skimba.save_model` holds, pruned as it was.

    Args:
        name: one of :func:`skimba.list_models`, for instance ``"vim_small_patch16_224"``. If left out, ``checkpoint`` says all.
        pretrained: load the official weights (downloaded from the Hugging Face Hub), or those in the package for the micro
            models.
        checkpoint: load these weights instead (see :func:`skimba.load_checkpoint`).
        sizes: overrides of the variant's sizes, for instance ``img_size=384`` or ``num_classes=10``.

    Raises:
        ValueError: unknown name, or both ``pretrained`` and ``checkpoint``.
        TypeError: a size that the model does not have.
        ConnectionError, FileNotFoundError, ValueError: weights that cannot be had or do not fit.
    """
    if name is None:
        if checkpoint is None or pretrained or sizes:
            raise ValueError("without a name, give checkpoint=PATH alone: a file of skimba.save_model")
        return load_model(checkpoint)
    return named_model(name, pretrained, checkpoint, **sizes)
