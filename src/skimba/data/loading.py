"""Pictures in batches, decoded in worker processes, for one of several processes that share the work."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skimba.data.pictures import Pictures
from skimba.data.transforms import Transform

TRIES = 100  # consecutive unreadable pictures before a training gives up


class Rejected(NamedTuple):
    """A picture that could not be read."""

    name: str
    reason: str


class Batch(NamedTuple):
    """What a reader collated, and what was left out.

    Attributes:
        images: ``(b c height width)`` float32, or a list of ``(c height width)``.
        targets: of the images, in the reader's form.
        indices: ``(b)`` int64, their places in the data set.
        asked: how many pictures were wanted.
    """

    images: Any
    targets: Any
    indices: Tensor
    rejected: list[Rejected]
    asked: int


class Reader(Protocol):
    """How pictures of a data set become a batch: a task's own. Worker processes call it, so it can be pickled."""

    def read(self, pictures: Pictures, index: int) -> tuple[Any, Any]:
        """An image as the model takes it and its target. Raises ValueError if the picture cannot be read."""

    def collate(self, samples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Images and targets of a batch, which may be empty."""


@dataclass(frozen=True)
class ClassReader:
    """Pictures of one size with their classes: images ``(b c height width)`` float32, targets ``(b)`` int64."""

    transform: Transform

    def read(self, pictures: Pictures, index: int) -> tuple[Tensor, int]:
        return self.transform(pictures.picture(index)), pictures.target(index)

    def collate(self, samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        images = torch.stack([image for image, _ in samples]) if samples else torch.empty(0)
        return images, torch.tensor([label for _, label in samples], dtype=torch.int64)


class Wanted(NamedTuple):
    """A picture to load. With a seed it is for training: all randomness in its transform follows from the seed."""

    place: int
    seed: int | None = None


_Sample = tuple[int, tuple[Any, Any] | None, list[Rejected]]


@dataclass(frozen=True)
class _Loaded(Dataset[_Sample]):
    pictures: Pictures
    reader: Reader

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, wanted: Wanted) -> _Sample:
        """In training the next readable picture replaces an unreadable one, so that batches keep their size."""
        if wanted.seed is not None:
            random.seed(wanted.seed)
            np.random.seed(wanted.seed % 2**32)
            torch.manual_seed(wanted.seed)
        rejected: list[Rejected] = []
        for step in range(1 if wanted.seed is None else min(TRIES, len(self))):
            index = (wanted.place + step) % len(self)
            try:
                return index, self.reader.read(self.pictures, index), rejected
            except (ValueError, OSError) as error:
                rejected.append(Rejected(self.pictures.name(index), " ".join(str(error).split())))
        return wanted.place, None, rejected

    def collate(self, samples: list[_Sample]) -> Batch:
        rejected = [one for sample in samples for one in sample[2]]
        found = [(index, sample) for index, sample, _ in samples if sample is not None]
        indices = torch.tensor([index for index, _ in found], dtype=torch.int64)
        images, targets = self.reader.collate([sample for _, sample in found])
        return Batch(images, targets, indices, rejected, len(samples))


def load_batches(
    pictures: Pictures, reader: Reader, wanted: Iterable[list[Wanted]], workers: int, strict: bool = False
) -> Iterator[Batch]:
    """The wanted batches in order. An unreadable picture is left out (in training replaced) and reported in its batch.

    Args:
        workers: processes that decode; 0: this one does.
        strict: raise at the first unreadable picture.

    Raises:
        ValueError: an unreadable picture and ``strict``.
    """
    loaded = _Loaded(pictures, reader)
    loader = DataLoader(loaded, batch_sampler=wanted, num_workers=workers, collate_fn=loaded.collate)
    for batch in loader:
        if strict and batch.rejected:
            raise ValueError(batch.rejected[0].reason)
        yield batch


def in_order(count: int, batch_size: int, first: int = 0, every: int = 1) -> list[list[Wanted]]:
    """Each picture once: batches of the pictures ``first``, ``first + every``, … below ``count``."""
    mine = [Wanted(index) for index in range(first, count, every)]
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
