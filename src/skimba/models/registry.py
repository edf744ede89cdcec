"""The models by name: building them, here and for timm.

The table :data:`MODELS` lists ours; what other packages register with timm, under any name, does not enter it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import register_model
from torch import nn

from skimba.models import local_vim, mamba_reg, plain_mamba, video_mamba, vim
from skimba.models.base import TokenModel
from skimba.models.checkpoint import load_checkpoint
from skimba.models.feature_maps import FeatureMaps
from skimba.models.sizes import check_sizes
from skimba.models.variants import Preprocessing, Variant, fetch

MODELS: dict[str, Variant] = {
    **vim.VARIANTS,
    **plain_mamba.VARIANTS,
    **video_mamba.VARIANTS,
    **mamba_reg.VARIANTS,
    **local_vim.VARIANTS,
}
FEATURE_SETTINGS = ("out_indices", "norm", "output_fmt", "restore")
# What timm.create_model always passes, besides sizes.
TIMM_SETTINGS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def list_models() -> list[str]:
    """Names that :func:`skimba.create_model` knows."""
    return sorted(MODELS)


def named_model(
    name: str,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    weights: str = "model",
    **sizes: Any,
) -> TokenModel:
    """A dense model by name; see :func:`skimba.create_model`.

    A head of another size than the checkpoint's starts afresh where ``num_classes`` is given, and the first convolution is
    adapted to other channels where ``in_chans`` is given; patches are resized where ``patch_size`` is given.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(list_models())}")
    if pretrained and checkpoint is not None:
        raise ValueError("give pretrained=True or checkpoint=PATH, not both")
    variant = MODELS[name]
    check_sizes(variant.model, {**variant.sizes, **sizes})
    model = variant.model(**{**variant.sizes, **sizes})
    if len(model.layers) == variant.sizes["depth"]:
        model.paper_schedule = variant.paper_schedule
    model.pretrained_cfg = {**_as_timm(variant.preprocessing, model), "architecture": name, "sizes": sizes}
    path = fetch(variant.source) if pretrained else checkpoint
    if path is not None:
        changed = {"reset_head": "num_classes", "adapt_channels": "in_chans", "resize_patches": "patch_size"}
        load_checkpoint(model, path, weights=weights, **{name: size in sizes for name, size in changed.items()})
    return model


def _as_timm(preprocessing: Preprocessing, model: TokenModel) -> dict[str, Any]:
    """How the weights expect pictures, in the terms of timm's tools."""
    mean, std = preprocessing.mean, preprocessing.std
    if len(mean) != model.in_chans:  # another number of channels than the weights have: their average is used for all
        mean, std = ((sum(values) / len(values),) * model.in_chans for values in (mean, std))
    return {
        "input_size": model.input_shape(),
        "num_classes": model.num_classes,
        "interpolation": "bicubic",
        "mean": mean,
        "std": std,
        "crop_pct": preprocessing.crop_share,
        "first_conv": model.parts.first_conv,
        "classifier": model.parts.head,
    }


def as_features(model: TokenModel, settings: Mapping[str, Any]) -> FeatureMaps:
    """The model as timm's ``features_only`` makes it.

    Args:
        settings: arguments of :class:`FeatureMaps`.

    Raises:
        TypeError: another setting.
    """
    if unknown := sorted(settings.keys() - set(FEATURE_SETTINGS)):
        raise TypeError(f"features_only takes {', '.join(FEATURE_SETTINGS)}; got {', '.join(unknown)}")
    return FeatureMaps(model, **settings)


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes of a model, and settings of its features."""
    features = {key: value for key, value in settings.items() if key in FEATURE_SETTINGS}
    return {key: value for key, value in settings.items() if key not in features}, features


def _register_with_timm(name: str, variant: Variant) -> None:
    """``timm.create_model(name)`` makes the same model as :func:`named_model`."""

    def entrypoint(pretrained: bool = False, features_only: bool = False, **settings: Any) -> nn.Module:
        given = {key: settings.pop(key, None) for key in TIMM_SETTINGS}
        if tag := given["pretrained_cfg"]:
            raise ValueError(f"{name} has one set of weights, without a tag; got pretrained_cfg={tag!r}")
        overlay: Mapping[str, Any] = given["pretrained_cfg_overlay"] or {}
        sizes, features = split_settings(settings) if features_only else (settings, {})
        model = named_model(name, pretrained and "file" not in overlay, overlay.get("file"), **sizes)
        model.pretrained_cfg |= overlay
        return as_features(model, features) if features_only else model

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = variant.model.__module__
    entrypoint.__doc__ = variant.about
    setattr(sys.modules[variant.model.__module__], name, entrypoint)
    register_model(entrypoint)


for _name, _variant in MODELS.items():
    _register_with_timm(_name, _variant)
