"""Semantic segmentation: the class of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from skimba.data import IGNORED, Pictures
from skimba.data.dense_reading import Changes, CroppedMaps, MapReader, MeasurableReader, mirrored_maps
from skimba.data.loading import Batch
from skimba.dense import UperNet
from skimba.runtime.files import write_atomically
from skimba.tasks.base import Criterion, Forward
from skimba.tasks.dense_checks import check_augmentation, check_no_teacher, check_targets_are
from skimba.tasks.dense_drawing import draw_classes
from skimba.tasks.fitting_classes import check_classes, names_of_classes
from skimba.tasks.label_text import as_text, from_text, png_of
from skimba.tasks.naming import file_name
from skimba.tasks.tables import FORMATS, write_rows

FOLDER = ""  # of PNG files
CHUNK = 16


@dataclass(frozen=True)
class Segments:
    """The class of every pixel of one picture.

    Attributes:
        index: its place in the data set.
        png: the label map, a PNG file as text (see :mod:`skimba.tasks.label_text`).
        labels: the classes that occur, the largest first.
        shares: of the picture that they cover, in 0 … 1.
        class_names: of ``labels``; empty if neither model nor data set has any.
    """

    index: int
    name: str
    png: str
    labels: tuple[int, ...]
    shares: tuple[float, ...]
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segmentation:
    """The settings are for training; see :class:`skimba.training.Recipe`."""

    augmentation: str = "mirror"
    crop_side: int = 512

    @property
    def row(self) -> type[Segments]:
        return Segments

    @property
    def chunk(self) -> int:
        return CHUNK

    @property
    def formats(self) -> tuple[str, ...]:
        return (FOLDER, *FORMATS)

    def check(self, model: UperNet, pictures: Pictures) -> None:
        check_classes(model, pictures)

    def check_targets(self, pictures: Pictures) -> None:
        check_targets_are(np.ndarray, "label maps", pictures)

    def reader(self, model: UperNet) -> MeasurableReader:
        return MeasurableReader(model.backbone.patch_size)

    def training_reader(self, model: UperNet) -> MapReader:
        check_augmentation(self.augmentation, AUGMENTATIONS, "segmentation")
        return MapReader(AUGMENTATIONS[self.augmentation](self.crop_side))

    def criterion(self, model: UperNet, teacher: nn.Module | None) -> Criterion:
        check_no_teacher(teacher, "segmentation")

        def loss(forward: Forward, images: Tensor, maps: Tensor) -> Tensor:
            return torch.stack(list(forward(images, maps).values())).sum()

        return loss

    def predict(self, model: UperNet, pictures: Pictures, batch: Batch) -> list[Segments]:
        names = names_of_classes(model, pictures)
        found = []
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            classes = model([image])[0]["classes"].cpu()
            counts = torch.bincount(classes.flatten(), minlength=model.num_classes)
            order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
            labels = tuple(order.tolist())
            shares = tuple((counts[order] / classes.numel()).tolist())
            own = tuple(names[label] for label in labels) if names else ()
            found.append(Segments(index, pictures.name(index), as_text(classes.numpy()), labels, shares, own))
        return found

    def measure(self, rows: Sequence[Segments], pictures: Pictures) -> dict[str, Any]:
        """Over the pixels of the whole set, those of IGNORED left out: mean of the classes' intersections over unions (of the
        classes that occur in a map or a prediction), their mean accuracy, share of the pixels that are right."""
        counts = torch.zeros(len(pictures.classes), len(pictures.classes), dtype=torch.int64)
        for row in rows:
            counts += _confusion(pictures, row, len(pictures.classes))
        right, true, said = counts.diagonal().double(), counts.sum(1).double(), counts.sum(0).double()
        union = true + said - right
        iou, accuracy = right / union, right / true
        named = {
            name: share for name, share, n in zip(pictures.classes, iou.tolist(), union.tolist(), strict=True) if n
        }
        return {
            "miou": iou[union > 0].mean().item(),
            "mean_accuracy": accuracy[true > 0].mean().item(),
            "pixel_accuracy": (right.sum() / true.sum()).item(),
            "iou_of_class": named,
            "images": len(rows),
        }

    def describe(self, figures: Mapping[str, Any]) -> str:
        classes = sorted(figures["iou_of_class"].items(), key=lambda item: item[1])
        width = max(len(name) for name, _ in classes)
        lines = [f"{name:<{width}}  {share:6.2%}" for name, share in classes]
        total = (
            f"{figures['images']} images  mIoU {figures['miou']:.2%}  mean accuracy {figures['mean_accuracy']:.2%}  "
            f"pixel accuracy {figures['pixel_accuracy']:.2%}"
        )
        return "\n".join([total, "IoU of the classes, the hardest first:", *lines])

    def write(self, rows: Sequence[Segments], pictures: Pictures, path: Path) -> None:
        """A folder of label maps, PNG files whose numbers are the classes from 0 on, named as their pictures; or a table."""
        if path.suffix:
            write_rows(rows, self.row, path)
        else:
            path.mkdir(parents=True, exist_ok=True)
            for row in rows:
                _write_png(row.png, path / file_name(row, ".png"))

    def draw(self, picture: Image, row: Segments) -> Image:
        """Each class in its colour, with its name."""
        return draw_classes(picture, from_text(row.png), row.labels, row.class_names)


def _write_png(text: str, path: Path) -> None:
    write_atomically(path, lambda partial: Path(partial).write_bytes(png_of(text)))


def _confusion(pictures: Pictures, row: Segments, classes: int) -> Tensor:
    """``(classes classes)`` int64: how many pixels of the row's class were taken for the column's."""
    target = pictures.target(row.index)
    if isinstance(target, int):
        raise ValueError("the pictures have no label maps; use skimba predict for them")
    true, said = torch.from_numpy(target.read()), torch.from_numpy(from_text(row.png).astype(np.int64))
    if true.shape != said.shape:
        raise ValueError(f"{row.name} is {tuple(said.shape)} pixels (height, width), its label map {tuple(true.shape)}")
    known = true != IGNORED
    return torch.bincount(true[known] * classes + said[known], minlength=classes**2).view(classes, classes)


# By name: from the side of a crop in pixels, where there is one, to what is done with a picture and its map.
AUGMENTATIONS: dict[str, Callable[[int], Changes]] = {"mirror": lambda side: mirrored_maps(), "crop": CroppedMaps}
