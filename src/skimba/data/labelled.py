"""Labelled images in memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from skimba.data.pictures import Mode


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one size, as bytes, and their classes (a :class:`~skimba.data.Pictures`).

    Attributes:
        pixels: ``(b c height width)`` uint8.
        labels: ``(b)`` int64, classes 0 … ``len(classes) - 1``.
        classes: their names.
        mean, std: of the data set's pixels, in 0 … 1: what a model's input is normalised by.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: float
    std: float

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels) or not len(self.labels):
            raise ValueError(f"needs as many images as labels, and some: got {len(self.pixels)} and {len(self.labels)}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(f"labels must be 0 … {len(self.classes) - 1}, got {low} … {high}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | Tensor) -> LabelledImages:
        return replace(self, pixels=self.pixels[which], labels=self.labels[which])

    @property
    def mode(self) -> Mode:
        return "L" if self.pixels.shape[1] == 1 else "RGB"

    def name(self, index: int) -> str:
        return str(index)

    def target(self, index: int) -> int:
        return int(self.labels[index])

    def stamp(self, index: int) -> int:
        return zlib.crc32(self.pixels[index].numpy().tobytes())

    def picture(self, index: int) -> Image.Image:
        pixels = self.pixels[index].movedim(0, -1)
        return Image.fromarray(pixels.numpy() if self.mode == "RGB" else pixels[..., 0].numpy())

    def normalised(self) -> Tensor:
        """``(b c height width)`` float32, normalised by the data set's mean and standard deviation."""
        return (self.pixels.float() / 255 - self.mean) / self.std

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels, in order."""
        for start in range(0, len(self), batch_size):
            batch = self[start : start + batch_size]
            yield batch.normalised(), batch.labels
