"""From a name, or a file of save_model, to a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.models import FeatureMaps, TokenModel
from skimba.models.registry import as_features, named_model, split_settings
from skimba.store.description import CLASSIFIER, MAKERS
from skimba.store.publish import load_model


@overload
def create_model(
    name: str | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    *,
    weights: str = "model",
    features_only: Literal[False] = False,
    **sizes: Any,
) -> TokenModel: ...


@overload
def create_model(
    name: str | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    *,
    weights: str = "model",
    features_only: Literal[True],
    **sizes: Any,
) -> FeatureMaps: ...


def create_model(
    name: str | None = None,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    *,
    weights: str = "model",
    features_only: bool = False,
    **sizes: Any,
) -> TokenModel | FeatureMaps:
    """A model by name, or the one that a file of :func:`skimba.save_model` holds, pruned as it was.

    Args:
        name: one of :func:`skimba.list_models`, for instance ``"vim_small_patch16_224"``. Without it, ``checkpoint`` decides.
        pretrained: load the official weights (downloaded from the Hugging Face Hub), or those in the package for the micro
            models.
        checkpoint: load these weights instead (see :func:`skimba.load_checkpoint`).
        weights: ``"ema"``: the moving average that some checkpoints hold beside the weights.
        features_only: give a model whose result is a list of maps, as timm does; ``out_indices``, ``norm``, ``output_fmt`` and
            ``restore`` are then taken too (see :class:`skimba.models.FeatureMaps`).
        sizes: overrides of the variant's sizes, for instance ``img_size=384``; ``num_classes=10`` gives pretrained weights a
            fresh head, ``in_chans=1`` adapts their first convolution.

    Raises:
        ValueError: unknown name, or both ``pretrained`` and ``checkpoint``.
        TypeError: a size that the model does not have.
        ConnectionError, FileNotFoundError, ValueError: weights that are unavailable or do not fit.
    """
    sizes, features = split_settings(sizes) if features_only else (sizes, {})
    if name is not None:
        model = named_model(name, pretrained, checkpoint, weights, **sizes)
    elif checkpoint is None or pretrained or sizes or weights != "model":
        raise ValueError("without a name, give checkpoint=PATH alone: a file of skimba.save_model")
    else:
        model = load_model(checkpoint)
    return as_features(model, features) if features_only else model


def make_model(
    kind: str, name: str, pretrained: bool | str = False, checkpoint: str | Path | None = None, **sizes: Any
) -> TokenModel | DenseModel:
    """A classifier, detector or segmenter by name.

    Args:
        kind: a key of :data:`skimba.store.description.MAKERS`.
        pretrained: of a classifier whether, of a detector or segmenter whose weights are loaded.

    Raises: as :func:`create_model`, :func:`skimba.mask_rcnn`, :func:`skimba.upernet`.
    """
    if kind == CLASSIFIER:
        return create_model(name, bool(pretrained), checkpoint, **sizes)
    model: DenseModel = MAKERS[kind](name, pretrained=pretrained or None, checkpoint=checkpoint, **sizes)
    return model


def set_input(model: TokenModel | DenseModel, settings: Mapping[str, Any]) -> None:
    """Change how a model's pictures are normalised (``mean``, ``std``) and cropped (``crop_pct``)."""
    tokens_of(model).pretrained_cfg |= settings
    if isinstance(model, DenseModel):
        config = model.backbone.pretrained_cfg
        model.pictures.image_mean, model.pictures.image_std = list(config["mean"]), list(config["std"])
