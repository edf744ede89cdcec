"""Pictures in batches, decoded in worker processes, for one of several processes that share the work."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skimba.data.pictures import Pictures
from skimba.data.transforms import Transform

TRIES = 100  # pictures in a row that may be unreadable before a training gives up


class Rejected(NamedTuple):
    """A picture that could not be read."""

    name: str
    reason: str


class Batch(NamedTuple):
    """``images (b c height width)`` float32, ``labels (b)`` int64, ``indices (b)`` in the data set; and what was left out."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    rejected: list[Rejected]


class Wanted(NamedTuple):
    """A picture to load. With a seed it is for training: all chance in its transform follows from the seed."""

    place: int
    seed: int | None = None


@dataclass(frozen=True)
class _Loaded(Dataset[tuple[int, Tensor | None, list[Rejected]]]):
    pictures: Pictures
    transform: Transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, wanted: Wanted) -> tuple[int, Tensor | None, list[Rejected]]:
        """In training the next readable picture stands in for an unreadable one, so that batches keep their size."""
        if wanted.seed is not None:
            random.seed(wanted.seed)
            np.random.seed(wanted.seed % 2**32)
            torch.manual_seed(wanted.seed)
        rejected: list[Rejected] = []
        for step in range(1 if wanted.seed is None else min(TRIES, len(self))):
            index = (wanted.place + step) % len(self)
            try:
                return index, self.transform(self.pictures.picture(index)), rejected
            except (ValueError, OSError) as error:
                rejected.append(Rejected(self.pictures.name(index), " ".join(str(error).split())))
        return wanted.place, None, rejected

    def collate(self, samples: list[tuple[int, Tensor | None, list[Rejected]]]) -> Batch:
        rejected = [one for sample in samples for one in sample[2]]
        found = [(index, image) for index, image, _ in samples if image is not None]
        indices = torch.tensor([index for index, _ in found], dtype=torch.int64)
        labels = torch.tensor([self.pictures.label(index) for index, _ in found], dtype=torch.int64)
        images = torch.stack([image for _, image in found]) if found else torch.empty(0)
        return Batch(images, labels, indices, rejected)


def load_batches(
    pictures: Pictures, transform: Transform, wanted: Iterable[list[Wanted]], workers: int, strict: bool = False
) -> Iterator[Batch]:
    """The wanted batches in order. An unreadable picture is left out (in training replaced) and reported in its batch.

    Args:
        workers: processes that decode; 0: this one does.
        strict: raise at the first unreadable picture.

    Raises:
        ValueError: an unreadable picture and ``strict``.
    """
    loaded = _Loaded(pictures, transform)
    loader = DataLoader(loaded, batch_sampler=wanted, num_workers=workers, collate_fn=loaded.collate)
    for batch in loader:
        if strict and batch.rejected:
            raise ValueError(batch.rejected[0].reason)
        yield batch


def in_order(count: int, batch_size: int, first: int = 0, every: int = 1) -> list[list[Wanted]]:
    """Each picture once: batches of the pictures ``first``, ``first + every``, … below ``count``."""
    mine = [Wanted(index) for index in range(first, count, every)]
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
