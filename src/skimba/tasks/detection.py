"""Detection with instance masks: boxes, classes and masks of the objects in a picture, by COCO's measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from skimba.data import Instances, Pictures
from skimba.data.dense_reading import Changes, ObjectReader, PictureReader, jittered, mirrored
from skimba.data.instances import runs_of, text_of
from skimba.data.loading import Batch
from skimba.dense import MaskRCNN
from skimba.runtime.files import write_text_atomically
from skimba.tasks.base import Criterion, Forward
from skimba.tasks.coco_measure import describe_coco, measure_coco, named_results
from skimba.tasks.dense_checks import check_augmentation, check_no_teacher, check_targets_are
from skimba.tasks.dense_drawing import draw_objects
from skimba.tasks.fitting_classes import check_classes, names_of_classes
from skimba.tasks.tables import FORMATS, write_rows

RESULTS = ".json"  # as COCO's servers take them
CHUNK = 16


@dataclass(frozen=True)
class Detections:
    """The objects found in one picture, best first.

    Attributes:
        index: its place in the data set.
        height, width: of the picture, in pixels.
        boxes: ``x0 y0 x1 y1`` of each, in pixels.
        labels: their classes, places in the data set's classes.
        scores: in 0 … 1.
        masks: COCO's compressed runs.
        class_names: of ``labels``; empty if neither model nor data set has any.
    """

    index: int
    name: str
    height: int
    width: int
    boxes: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    masks: tuple[str, ...]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.boxes), len(self.labels), len(self.scores), len(self.masks)}
        if len(counts) != 1 or any(len(box) != 4 for box in self.boxes):
            raise ValueError("needs as many labels, scores and masks as boxes, each of four numbers")


@dataclass(frozen=True)
class Detection:
    """The settings are for training; see :class:`skimba.training.Recipe`."""

    augmentation: str = "mirror"
    crop_side: int = 512

    @property
    def row(self) -> type[Detections]:
        return Detections

    @property
    def chunk(self) -> int:
        return CHUNK

    @property
    def formats(self) -> tuple[str, ...]:
        return (RESULTS, *FORMATS)

    def check(self, model: MaskRCNN, pictures: Pictures) -> None:
        check_classes(model, pictures)

    def check_targets(self, pictures: Pictures) -> None:
        check_targets_are(Instances, "boxes and masks", pictures)

    def reader(self, model: MaskRCNN) -> PictureReader:
        return PictureReader(model.backbone.patch_size)

    def training_reader(self, model: MaskRCNN) -> ObjectReader:
        check_augmentation(self.augmentation, AUGMENTATIONS, "detection")
        return ObjectReader(AUGMENTATIONS[self.augmentation](self.crop_side), model.backbone.patch_size)

    def criterion(self, model: MaskRCNN, teacher: nn.Module | None) -> Criterion:
        check_no_teacher(teacher, "detection")

        def loss(forward: Forward, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
            return torch.stack(list(forward(images, targets).values())).sum()

        return loss

    def predict(self, model: MaskRCNN, pictures: Pictures, batch: Batch) -> list[Detections]:
        """Picture by picture, so that padding beside a larger one changes nothing."""
        names = names_of_classes(model, pictures)
        found = []
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            objects = {name: part.cpu() for name, part in model([image])[0].items()}
            labels = tuple((objects["labels"] - 1).tolist())  # the model's 0 is the background
            masks = objects["masks"][:, 0].numpy()
            found.append(
                Detections(
                    index,
                    pictures.name(index),
                    image.shape[1],
                    image.shape[2],
                    tuple(map(tuple, objects["boxes"].tolist())),
                    labels,
                    tuple(objects["scores"].tolist()),
                    tuple(text_of(runs_of(mask)) for mask in masks),
                    tuple(names[label] for label in labels) if names else (),
                )
            )
        return found

    def measure(self, rows: Sequence[Detections], pictures: Pictures) -> dict[str, Any]:
        """COCO's twelve figures of boxes and of masks, and the AP of each class."""
        return measure_coco(rows, pictures)

    def describe(self, figures: Mapping[str, Any]) -> str:
        return describe_coco(figures)

    def write(self, rows: Sequence[Detections], pictures: Pictures, path: Path) -> None:
        """COCO's results (``.json``), or a table. Ids are those of COCO's file; of other pictures they are places in the data
        set and in its classes, and each result has the ``file_name``."""
        if path.suffix.lower() != RESULTS:
            write_rows(rows, self.row, path)
        else:
            write_text_atomically(path, json.dumps(named_results(rows, pictures)) + "\n")

    def draw(self, picture: Image, row: Detections) -> Image:
        """Boxes, masks, names and scores."""
        return draw_objects(picture, row)


# By name: from the side of a crop in pixels, where there is one, to what is done with a picture.
AUGMENTATIONS: dict[str, Callable[[int], Changes]] = {"mirror": lambda side: mirrored(), "jitter": jittered}
