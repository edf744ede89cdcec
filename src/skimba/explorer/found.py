"""What a detector or a segmenter finds in one picture: objects or classes as a list, and drawn as its task draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from skimba.data.loading import Batch
from skimba.data.pictures import UNKNOWN, Mode
from skimba.dense import DenseModel
from skimba.models import TokenModel
from skimba.tasks import task_of
from skimba.tasks.dense_drawing import LEAST_SCORE
from skimba.tasks.detection import Detections
from skimba.tasks.segmentation import Segments

Found = Detections | Segments
Shares = list[tuple[int, float]]


@dataclass(frozen=True)
class OnePicture:
    """A visitor's picture as a :class:`~skimba.data.Pictures`."""

    image: Image
    classes: tuple[str, ...]
    mode: Mode = "RGB"

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "the picture"

    def target(self, index: int) -> int:
        return UNKNOWN

    def stamp(self, index: int) -> int:
        return 0

    def picture(self, index: int) -> Image:
        return self.image


def find(model: DenseModel, classes: tuple[str, ...], image: Tensor) -> Found:
    """What the model finds in ``image (1 c height width)``, values in 0 … 1."""
    pictures = OnePicture(functional.to_pil_image(image[0]), classes)
    batch = Batch(list(image), [None], torch.zeros(1, dtype=torch.int64), [], 1)
    with torch.inference_mode():
        row: Found = task_of(model).predict(model, pictures, batch)[0]
    return row


def drawn(model: TokenModel | DenseModel, row: Found, image: Tensor) -> Image:
    """The picture with boxes, masks and names, or with the class of every pixel."""
    found: Image = task_of(model).draw(functional.to_pil_image(image[0]), row)
    return found


def shares(model: DenseModel, row: Found) -> Shares:
    """Numbers of classes, each with the score of an object that is drawn, or with its share of the pixels; the largest first."""
    return SHARES[model.task](row)


def _objects(row: Any) -> Shares:
    return [(label, score) for label, score in zip(row.labels, row.scores, strict=True) if score >= LEAST_SCORE]


def _areas(row: Any) -> Shares:
    return list(zip(row.labels, row.shares, strict=True))


SHARES: dict[str, Callable[[Any], Shares]] = {"detection": _objects, "segmentation": _areas}
