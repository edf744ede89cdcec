"""From a picture to what a model takes. The model's ``pretrained_cfg`` (timm's convention) gives size, mean, std and crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL.Image import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torchvision import transforms

Transform = Callable[[Image], Tensor]  # -> (c height width) float32, normalised
SHIFT = 1  # largest random shift of a small training image, in pixels


def evaluation_transform(model: nn.Module) -> Transform:
    """Resize (bicubic) so that the crop's share of the side is ``crop_pct``, centre crop, normalise."""
    config = resolve_data_config(model=model)
    return create_transform(config["input_size"], **_pixels(config), crop_pct=config["crop_pct"])


def shift_transform(model: nn.Module) -> Transform:
    """For small pictures of single objects: random shifts by up to SHIFT pixels (padded with black) and random mirroring."""
    config = resolve_data_config(model=model)
    size = config["input_size"][-2:]
    return transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.RandomCrop(size, padding=SHIFT),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )


def imagenet_transform(model: nn.Module, auto_augment: str, color_jitter: float, erasing: float) -> Transform:
    """DeiT's: random crop, random mirroring, RandAugment, colour jitter, random erasing (all timm's)."""
    config = resolve_data_config(model=model)
    return create_transform(
        config["input_size"],
        is_training=True,
        auto_augment=auto_augment or None,
        color_jitter=color_jitter,
        re_prob=erasing,
        re_mode="pixel",
        **_pixels(config),
    )


def _pixels(config: dict[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("interpolation", "mean", "std")}
