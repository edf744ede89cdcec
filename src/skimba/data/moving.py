"""Moving items: real items of Fashion-MNIST that cross real photographs, left, right, up or down.

A clip's class is the item and its direction. The same way is walked forward and backward equally often, so that its frames
alone, without their order, do not tell the direction. The photograph pans a little, and every frame has its own noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from skimba.data.labelled import LabelledImages
from skimba.data.pictures import Mode
from skimba.data.scenes import LEAST_TINT, OPAQUE, PART, PHOTOGRAPHS, Pixels, photographs

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIDE = (0.4, 0.55)  # of an item, in sides of the frame
WAY = (0.25, 0.45)  # that an item goes, in sides of the frame
PAN = 4.0  # the most that the photograph moves, in pixels
NOISE = 4.0  # standard deviation, in grey levels


@dataclass(frozen=True, eq=False)
class MovingItems:
    """As many clips as there are items; clip ``i`` shows item ``i`` (a :class:`~skimba.data.Clips`).

    Attributes:
        items: Fashion-MNIST's images of the same split.
        split: ``"train"`` or ``"test"``: the part of the photographs seen.
        size: side of a frame in pixels.
        seed: decides everything.
    """

    items: LabelledImages
    split: str
    size: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in PART:
            raise ValueError(f"unknown split {self.split!r}; known: {', '.join(PART)}")
        photographs()  # a missing package shows here, not in the middle of an epoch

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"{item} {direction}" for item in self.items.classes for direction in DIRECTIONS)

    @property
    def mode(self) -> Mode:
        return "RGB"

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return str(index)

    def target(self, index: int) -> int:
        return int(self.items.labels[index]) * len(DIRECTIONS) + self._direction(index)

    def stamp(self, index: int) -> int:
        return self.items.stamp(index)

    def picture(self, index: int) -> Image.Image:
        return self.frames(index, 1)[0]

    def frames(self, index: int, count: int) -> list[Image.Image]:
        draw = np.random.default_rng((self.seed, index))
        ground = self._ground(draw)
        side = int(self.size * draw.uniform(*SIDE))
        grey = Image.fromarray(self.items.pixels[index, 0].numpy())
        item = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR), np.float32)[:, :, None]
        tint = draw.uniform(LEAST_TINT, 1, 3).astype(np.float32)
        way = self.size * draw.uniform(*WAY)
        step = np.array(tuple(DIRECTIONS.values())[self._direction(index)]) * way  # x, y
        room = self.size - side - np.abs(step)
        start = draw.uniform(0, 1, 2) * room + np.maximum(-step, 0)
        pan = draw.uniform(-PAN, PAN, 2)
        frames = []
        for moment in (np.arange(count) + 0.5) / count:
            left, top = (int(place) for place in np.rint(PAN + pan * moment))
            frame = ground[top : top + self.size, left : left + self.size].copy()
            x, y = (int(place) for place in start + step * moment)
            window = frame[y : y + side, x : x + side]
            window += np.minimum(item / OPAQUE, 1) * (item * tint - window)
            frame += draw.normal(0, NOISE, frame.shape)
            frames.append(Image.fromarray(np.clip(np.rint(frame), 0, 255).astype(np.uint8)))
        return frames

    def _direction(self, index: int) -> int:
        return int(np.random.default_rng((self.seed, index, 1)).integers(len(DIRECTIONS)))

    def _ground(self, draw: np.random.Generator) -> Pixels:
        """A part of a photograph, larger than a frame by what it may pan."""
        photograph = photographs()[draw.integers(len(PHOTOGRAPHS))]
        left, right = (int(share * photograph.width) for share in PART[self.split])
        side = self.size + 2 * int(PAN)
        x, y = int(draw.integers(left, right - side + 1)), int(draw.integers(photograph.height - side + 1))
        return np.asarray(photograph.crop((x, y, x + side, y + side)), np.float32)
