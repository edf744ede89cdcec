"""Fashion scenes: real items of Fashion-MNIST at random places and scales on real photographs, most of the picture background.

Every scene is determined by the seed and its number. The photographs are those that scikit-image ships; training scenes use
the left of each, test scenes the right, so that no background occurs in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from skimba.data.labelled import LabelledImages

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "rocket",
)
PART = {"train": (0.0, 0.7), "test": (0.7, 1.0)}  # of each photograph's width
ZOOM = (1.0, 2.0)  # a background shows that many photograph pixels for each of its own
SIDE = (0.4, 0.7)  # of an item, in sides of the scene, unless asked otherwise
OPAQUE = 64  # an item's pixels of this value and above hide the background; darker ones in proportion
LEAST_TINT = 0.5
MOST_OVERLAP = 0.3  # of an item's box with another's
TRIES = 20  # to place a further item
MEAN, STD = 0.40, 0.24  # of the training scenes

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # x0 y0 x1 y1


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is in it.

    Attributes:
        pixels: ``(3 height width)`` uint8.
        labels: ``(i)`` int64, the classes of its items.
        boxes: ``(i 4)`` float32, ``x0 y0 x1 y1`` in pixels around each item's visible part.
        masks: ``(i height width)`` bool, each item's visible part.
    """

    pixels: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor


class FashionScenes(Dataset[Scene]):
    """As many scenes as there are items: scene ``i`` shows item ``i`` and up to ``most_items - 1`` others.

    Args:
        items: Fashion-MNIST's images of the same split.
        split: ``"train"`` or ``"test"``: the part of the photographs seen.
        size: side of a scene in pixels.
        most_items: their number is drawn uniformly from 1 to this.
        seed: decides everything.
        side: of an item, least and most, in sides of the scene.

    Raises:
        ValueError: an unknown split, or a number below 1.
        ImportError: scikit-image is not installed (``pip install 'skimba[scenes]'``).
    """

    def __init__(
        self,
        items: LabelledImages,
        split: str,
        size: int = 56,
        most_items: int = 1,
        seed: int = 0,
        side: tuple[float, float] = SIDE,
    ) -> None:
        if split not in PART:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(PART)}")
        if size < 8 or most_items < 1:
            raise ValueError(
                f"needs scenes of 8 pixels or more and an item or more, got size {size}, {most_items} items"
            )
        if not 0 < side[0] <= side[1] <= 1:
            raise ValueError(f"needs sides of items in 0 … 1, the least first, got {side}")
        self.items, self.split, self.size, self.most_items, self.seed = items, split, size, most_items, seed
        self.side = side
        photographs()  # a missing package shows here, not in the middle of an epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        draw = np.random.default_rng((self.seed, index))
        picture = self._background(draw)
        labels: list[int] = []
        boxes: list[Box] = []
        masks: list[Mask] = []
        others = draw.integers(len(self), size=int(draw.integers(1, self.most_items + 1)) - 1)
        for item in (index, *others.tolist()):
            placed = self._place(item, boxes, draw)
            if placed is None:
                continue
            box, grey = placed
            alpha = np.minimum(grey / OPAQUE, 1)[:, :, None]
            tint = draw.uniform(LEAST_TINT, 1, 3).astype(np.float32)
            window = np.s_[box[1] : box[3], box[0] : box[2]]
            picture[window] += alpha * (grey[:, :, None] * tint - picture[window])
            mask = np.zeros((self.size, self.size), bool)
            mask[window] = alpha[:, :, 0] >= 0.5
            masks = [earlier & ~mask for earlier in masks] + [mask]
            labels.append(int(self.items.labels[item]))
            boxes.append(box)
        visible = [place for place, mask in enumerate(masks) if mask.any()]
        return Scene(
            torch.from_numpy(np.rint(picture).astype(np.uint8)).movedim(-1, 0).contiguous(),
            torch.tensor([labels[place] for place in visible], dtype=torch.int64),
            torch.tensor([_around(masks[place]) for place in visible], dtype=torch.float32).reshape(-1, 4),
            torch.from_numpy(np.stack(masks)[visible]),
        )

    def labelled(self) -> LabelledImages:
        """All scenes in memory, each with the class of its first item: for classification, with ``most_items=1``."""
        pixels = torch.stack([self[index].pixels for index in range(len(self))])
        return LabelledImages(pixels, self.items.labels, self.items.classes, MEAN, STD)

    def ground(self, index: int) -> str:
        """The photograph behind a scene: one of PHOTOGRAPHS."""
        return PHOTOGRAPHS[_photograph(np.random.default_rng((self.seed, index)))]

    def _background(self, draw: np.random.Generator) -> Pixels:
        photograph = photographs()[_photograph(draw)]
        left, right = (int(share * photograph.width) for share in PART[self.split])
        side = min(int(self.size * draw.uniform(*ZOOM)), right - left, photograph.height)
        x, y = int(draw.integers(left, right - side + 1)), int(draw.integers(photograph.height - side + 1))
        crop = photograph.resize((self.size, self.size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
        return np.asarray(crop, np.float32).copy()

    def _place(self, item: int, taken: list[Box], draw: np.random.Generator) -> tuple[Box, Pixels] | None:
        """A box for the item with its grey values in it, or None where there is no room."""
        for _ in range(TRIES):
            side = max(int(self.size * draw.uniform(*self.side)), 1)
            x, y = (int(place) for place in draw.integers(self.size - side + 1, size=2))
            box = (x, y, x + side, y + side)
            if all(_overlap(box, other) <= MOST_OVERLAP for other in taken):
                grey = Image.fromarray(self.items.pixels[item, 0].numpy())
                return box, np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR), np.float32)
        return None


@cache
def photographs() -> tuple[Image.Image, ...]:
    """The backgrounds, RGB. Raises ImportError without scikit-image."""
    try:
        import skimage.data
    except ImportError as error:
        raise ImportError("fashion scenes and moving items need scikit-image: pip install 'skimba[scenes]'") from error
    return tuple(Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS)


def _overlap(box: Box, other: Box) -> float:
    """Area of the intersection, as a share of the smaller box."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(width, 0) * max(height, 0) / smaller


def _photograph(draw: np.random.Generator) -> int:
    """The first thing that is drawn for a scene."""
    return int(draw.integers(len(PHOTOGRAPHS)))


def _around(mask: Mask) -> Box:
    """The box around a mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
