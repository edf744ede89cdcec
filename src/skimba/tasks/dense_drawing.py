"""Boxes, masks and names on pictures (torchvision's drawing), readable at any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from skimba.data.instances import runs_from

LEAST_SIDE = 640  # px: smaller pictures are enlarged by a whole number, so that names have room
LEAST_SCORE = 0.5  # detections below it are not drawn
OPACITY = 0.45
TEXT_SHARE = 1 / 32  # height of a name, in shorter sides of the picture
# Okabe and Ito's, told apart with every common form of colour blindness.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def draw_objects(picture: Image.Image, row: Any) -> Image.Image:
    """The objects of a :class:`skimba.tasks.detection.Detections` that score LEAST_SCORE or more."""
    canvas, factor = _enlarged(picture)
    shown = [place for place, score in enumerate(row.scores) if score >= LEAST_SCORE]
    if not shown:
        return functional.to_pil_image(canvas)
    masks = np.stack([runs_from(row.masks[place], row.height, row.width).mask() for place in shown])
    boxes = torch.tensor([row.boxes[place] for place in shown]) * factor
    names = row.class_names or [f"class {label}" for label in row.labels]
    texts = [f"{names[place]} {row.scores[place]:.0%}" for place in shown]
    colours = [COLOURS[row.labels[place] % len(COLOURS)] for place in shown]
    size = _text_size(canvas)
    canvas = draw_segmentation_masks(canvas, _enlarge(torch.from_numpy(masks), factor), OPACITY, colours)
    canvas = draw_bounding_boxes(canvas, boxes, colors=colours, width=max(size // 8, 2))
    drawn = functional.to_pil_image(canvas)
    for (x0, y0, _, _), text, colour in zip(boxes.tolist(), texts, colours, strict=True):
        _write(drawn, text, (x0, y0), colour, size)
    return drawn


def draw_classes(
    picture: Image.Image, classes: npt.NDArray[np.uint8], labels: Sequence[int], names: Sequence[str]
) -> Image.Image:
    """The classes of all pixels.

    Args:
        classes: ``(height width)``.
        labels: those to show.
        names: of the labels; empty: their numbers.
    """
    canvas, factor = _enlarged(picture)
    masks = torch.stack([torch.from_numpy(classes == label) for label in labels])
    colours = [COLOURS[label % len(COLOURS)] for label in labels]
    canvas = draw_segmentation_masks(canvas, _enlarge(masks, factor), OPACITY, colours)
    drawn, size = functional.to_pil_image(canvas), _text_size(canvas)
    for place, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        y, x = _inside(masks[place])
        _write(drawn, names[place] if names else f"class {label}", (x * factor, y * factor), colour, size)
    return drawn


def _enlarged(picture: Image.Image) -> tuple[Tensor, int]:
    """``(3 height width)`` uint8, and how many times as large it is."""
    picture = picture.convert("RGB")
    factor = max(-(-LEAST_SIDE // max(picture.size)), 1)
    return _enlarge(functional.pil_to_tensor(picture), factor), factor


def _enlarge(maps: Tensor, factor: int) -> Tensor:
    return maps.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _text_size(canvas: Tensor) -> int:
    return max(int(min(canvas.shape[1:]) * TEXT_SHARE), 14)


def _inside(mask: Tensor) -> tuple[int, int]:
    """The pixel of a mask that is nearest to its middle: row and column."""
    places = mask.nonzero()
    middle = places.double().mean(0)
    row, column = places[(places - middle).square().sum(1).argmin()].tolist()
    return row, column


def _write(drawn: Image.Image, text: str, place: tuple[float, float], colour: tuple[int, int, int], size: int) -> None:
    """A name on a plate of its colour, moved into the picture where it would stand out of it."""
    draw, font = ImageDraw.Draw(drawn), ImageFont.truetype(str(FONT), size)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = size // 5
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = min(max(place[0], 0), max(drawn.width - width, 0))
    y = min(max(place[1] - height, 0), max(drawn.height - height, 0))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    dark = sum(share * value for share, value in zip((0.299, 0.587, 0.114), colour, strict=True)) < 128
    draw.text((x + margin - left, y + margin - top), text, fill="white" if dark else "black", font=font)
