"""From pictures of any size to one batch, and the checks of what a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from skimba.dense.proposals import Target

SLACK_PX = 0.01  # by which a box may stand out of its picture: rounding


class FitPictures(GeneralizedRCNNTransform):
    """torchvision's normalisation and zero padding, with mmdetection's rule for the new size.

    Args:
        largest: pictures are resized, keeping their ratio, to fit into (short side, long side); None: left as they are.
        mean, std: of each channel, in 0 … 1.
        multiple: batches are padded with zeros, below and to the right, to sides that are multiples of this.
    """

    def __init__(
        self, largest: tuple[int, int] | None, mean: Sequence[float], std: Sequence[float], multiple: int
    ) -> None:
        self.largest = largest
        short, long = largest or (0, 0)
        super().__init__(short, long, list(mean), list(std), size_divisible=multiple)

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        """One picture ``(c height width)`` and what is in it, resized."""
        size = tuple(image.shape[1:])
        fitted = fit(size, self.largest)
        if fitted == size:
            return image, target
        image = F.interpolate(image[None], size=fitted, mode="bilinear", align_corners=False)[0]
        if target is not None:
            target = {**target, "boxes": resize_boxes(target["boxes"], list(size), list(fitted))}
            masks = target["masks"][:, None].to(torch.uint8)
            target["masks"] = F.interpolate(masks, size=fitted, mode="nearest")[:, 0]
        return image, target


def fit(size: tuple[Any, ...], largest: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width, keeping their ratio, that just fit into (short side, long side), rounded to the nearest pixel."""
    height, width = size
    if largest is None:
        return height, width
    scale = min(max(largest) / max(size), min(largest) / min(size))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def padded(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Height and width up to the next multiples."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def check_pictures(images: Sequence[Tensor], channels: int, patch_size: int) -> None:
    """Raise unless these are float pictures ``(c height width)`` of at least one patch.

    Raises:
        TypeError: not a floating point tensor.
        ValueError: no picture, other channels, or one that is smaller than a patch.
    """
    if len(images) == 0:
        raise ValueError("needs one picture or more, got none")
    for number, image in enumerate(images):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            got = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"picture {number} must be a floating point tensor with values in 0 … 1, got {got}")
        if image.dim() != 3 or image.shape[0] != channels:
            raise ValueError(f"picture {number} must be ({channels} height width), got {tuple(image.shape)}")
        if min(image.shape[1:]) < patch_size:
            raise ValueError(
                f"picture {number} must be at least one patch ({patch_size} px) high and wide, got {tuple(image.shape[1:])}"
            )


def check_objects(images: Sequence[Tensor], targets: Any, num_classes: int) -> None:
    """Raise unless every picture has a target: ``boxes (n 4)`` float, ``labels (n)`` int64 in 1 … num_classes, ``masks (n height
    width)`` bool or uint8. Without objects (n = 0) the picture is background.

    Raises:
        ValueError: anything else, with the number of the picture.
    """
    if targets is None or len(targets) != len(images):
        got = "none" if targets is None else len(targets)
        raise ValueError(f"training needs one target for each picture: got {len(images)} pictures and {got} targets")
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):
        if problem := _problem(tuple(image.shape[1:]), target, num_classes):
            raise ValueError(f"target {number}: {problem}")


def _problem(size: tuple[int, ...], target: Any, num_classes: int) -> str | None:
    """What is wrong with one target, or None."""
    if not isinstance(target, Mapping):
        return f"needs a dict of boxes, labels and masks, got {type(target).__name__}"
    if missing := [name for name in ("boxes", "labels", "masks") if not isinstance(target.get(name), Tensor)]:
        return f"needs tensors boxes, labels and masks, got no {', '.join(missing)}"
    boxes, labels, masks = target["boxes"], target["labels"], target["masks"]
    height, width = size
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        return f"boxes must be (n 4) floating point, got {tuple(boxes.shape)} {boxes.dtype}"
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        return f"labels must be ({len(boxes)}) int64, got {tuple(labels.shape)} {labels.dtype}"
    if masks.shape != (len(boxes), height, width) or masks.dtype not in (torch.bool, torch.uint8):
        return (
            f"masks must be {(len(boxes), height, width)} bool or uint8, as the boxes and the picture, got "
            f"{tuple(masks.shape)} {masks.dtype}"
        )
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = (low >= -SLACK_PX).all(1) & (high <= boxes.new_tensor([width, height]) + SLACK_PX).all(1)
    if wrong := (~(inside & (low < high).all(1))).nonzero()[:, 0].tolist():
        return (
            f"box {wrong[0]} is {boxes[wrong[0]].tolist()}: boxes are x0 y0 x1 y1 with x0 < x1 and y0 < y1, inside the "
            f"picture, which is {width} px wide and {height} px high"
        )
    if wrong := ((labels < 1) | (labels > num_classes)).nonzero()[:, 0].tolist():
        return f"label {wrong[0]} is {int(labels[wrong[0]])}: labels go from 1 to {num_classes}, 0 is the background"
    return None


def check_maps(images: Sequence[Tensor], targets: Any, num_classes: int, ignored: int) -> None:
    """Raise unless every picture has a map ``(height width)`` of classes 0 … num_classes-1 (or ``ignored``), uint8 or int64.

    Raises:
        ValueError: anything else, with the number of the picture.
    """
    if targets is None or len(targets) != len(images):
        got = "none" if targets is None else len(targets)
        raise ValueError(f"training needs one map for each picture: got {len(images)} pictures and {got} maps")
    for number, (image, classes) in enumerate(zip(images, targets, strict=True)):
        size, is_map = image.shape[1:], isinstance(classes, Tensor)
        if not is_map or classes.shape != size or classes.dtype not in (torch.uint8, torch.int64):
            got = f"{tuple(classes.shape)} {classes.dtype}" if is_map else type(classes).__name__
            raise ValueError(f"map {number} must be {tuple(size)} uint8 or int64, as its picture, got {got}")
        outside = classes[(classes != ignored) & ((classes < 0) | (classes >= num_classes))]
        if len(outside):
            raise ValueError(
                f"map {number} has the class {int(outside[0])}: classes go from 0 to {num_classes - 1}, {ignored} is ignored"
            )
