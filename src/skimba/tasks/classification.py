"""Classification: which one of the model's classes a picture shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import ImageDraw
from PIL.Image import Image
from timm.data import Mixup
from torch import Tensor, nn

from skimba.data import UNKNOWN, Pictures
from skimba.data.loading import Batch, ClassReader
from skimba.data.transforms import evaluation_transform, imagenet_transform, shift_transform
from skimba.models import TokenModel
from skimba.runtime.names import escape
from skimba.tasks.base import Criterion, Forward
from skimba.tasks.fitting_classes import check_classes, names_of_classes
from skimba.tasks.tables import FORMATS, write_csv, write_rows

TOP = 5
CHUNK = 512
HARDEST = 3  # classes that are named


@dataclass(frozen=True)
class ClassPrediction:
    """One picture.

    Attributes:
        index: its place in the data set.
        label: its true class, or UNKNOWN.
        classes: the most likely classes, best first, up to TOP.
        probabilities: of those classes.
        label_name, class_names: names of ``label`` and ``classes``; empty if neither model nor data set has any.
    """

    index: int
    name: str
    label: int
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    label_name: str = ""
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes or len(self.classes) != len(self.probabilities):
            raise ValueError(
                f"needs a class or more and as many probabilities, got {len(self.classes)} and {len(self.probabilities)}"
            )

    @property
    def correct(self) -> bool:
        return self.classes[0] == self.label


@dataclass(frozen=True)
class Classification:
    """The settings are for training; see :class:`skimba.training.Recipe`."""

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    distillation: float = 0.0
    augmentation: str = "shift"
    auto_augment: str = ""
    color_jitter: float = 0.0
    erasing: float = 0.0

    @property
    def row(self) -> type[ClassPrediction]:
        return ClassPrediction

    @property
    def chunk(self) -> int:
        return CHUNK

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(FORMATS)

    def check(self, model: TokenModel, pictures: Pictures) -> None:
        check_classes(model, pictures)

    def check_targets(self, pictures: Pictures) -> None:
        count = len(pictures.classes)
        wrong = [i for i in range(len(pictures)) if not 0 <= pictures.target(i) < count]
        if wrong:
            raise ValueError(
                f"{len(wrong)} pictures have no class of 0 … {count - 1}, for instance {pictures.name(wrong[0])}"
            )

    def reader(self, model: TokenModel) -> ClassReader:
        return ClassReader(evaluation_transform(model))

    def training_reader(self, model: TokenModel) -> ClassReader:
        if self.augmentation == "shift":
            return ClassReader(shift_transform(model))
        try:
            return ClassReader(imagenet_transform(model, self.auto_augment, self.color_jitter, self.erasing))
        except (AssertionError, ValueError, KeyError) as error:  # timm's parser of policies
            raise ValueError(
                f"auto_augment is a policy of timm such as rand-m9-mstd0.5-inc1, got {self.auto_augment!r} ({error})"
            ) from error

    def criterion(self, model: TokenModel, teacher: nn.Module | None) -> Criterion:
        mixup = None
        if self.mixup or self.cutmix:
            settings = {"label_smoothing": self.label_smoothing, "num_classes": model.num_classes}
            mixup = Mixup(self.mixup, self.cutmix, **settings)

        def loss(forward: Forward, images: Tensor, labels: Tensor) -> Tensor:
            if mixup is not None:
                images, labels = mixup(images, labels)  # labels become (b num_classes), smoothed
            logits = forward(images).float()
            found = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing if mixup is None else 0.0)
            if teacher is not None:
                found = found + self.distillation * _divergence(logits, teacher, images)
            return found

        return loss

    def predict(self, model: TokenModel, pictures: Pictures, batch: Batch) -> list[ClassPrediction]:
        logits = model(batch.images).float().cpu()
        probabilities, classes = logits.softmax(-1).topk(min(TOP, logits.shape[1]))
        names = names_of_classes(model, pictures)
        return [
            ClassPrediction(
                index,
                pictures.name(index),
                label,
                tuple(best),
                tuple(probability),
                names[label] if names and label != UNKNOWN else "",
                tuple(names[number] for number in best) if names else (),
            )
            for index, label, best, probability in zip(
                *(part.tolist() for part in (batch.indices, batch.targets, classes, probabilities)), strict=True
            )
        ]

    def measure(self, rows: Sequence[ClassPrediction], pictures: Pictures) -> dict[str, Any]:
        known = labelled(rows)
        if not known:
            raise ValueError("none of the pictures has a class; use skimba predict for them")
        counts = confusion(known, len(pictures.classes))
        of_class = (counts.diagonal() / counts.sum(1)).tolist()
        present = counts.sum(1).tolist()
        return {
            "top1": top_share(known, 1),
            "top5": top_share(known, TOP),
            "top1_of_class": {
                name: share for name, share, n in zip(pictures.classes, of_class, present, strict=True) if n
            },
            "images": len(known),
        }

    def describe(self, figures: Mapping[str, Any]) -> str:
        hardest = sorted(figures["top1_of_class"].items(), key=lambda item: item[1])[:HARDEST]
        named = ", ".join(f"{name} {share:.1%}" for name, share in hardest)
        return f"{figures['images']} images  top-1 {figures['top1']:.2%}  top-5 {figures['top5']:.2%}\nhardest: {named}"

    def write(self, rows: Sequence[ClassPrediction], pictures: Pictures, path: Path) -> None:
        """A table."""
        write_rows(rows, self.row, path)

    def draw(self, picture: Image, row: ClassPrediction) -> Image:
        """The most likely class and its probability in the upper left corner."""
        drawn = picture.convert("RGB")
        name = row.class_names[0] if row.class_names else f"class {row.classes[0]}"
        text, draw = f"{name} {row.probabilities[0]:.0%}", ImageDraw.Draw(drawn)
        size = max(10, min(drawn.size) // 16)
        draw.rectangle(draw.textbbox((2, 2), text, font_size=size), fill="black")
        draw.text((2, 2), text, fill="white", font_size=size)
        return drawn


def labelled(predictions: Iterable[ClassPrediction]) -> list[ClassPrediction]:
    """Those whose true class is known."""
    return [one for one in predictions if one.label != UNKNOWN]


def top_share(predictions: Iterable[ClassPrediction], top: int) -> float:
    """Share of the pictures whose true class is among the ``top`` most likely, in 0 … 1."""
    hits = [one.label in one.classes[:top] for one in predictions]
    return sum(hits) / len(hits)


def confusion(predictions: Iterable[ClassPrediction], class_count: int) -> Tensor:
    """``(class_count class_count)`` int64: how many pictures of the row's class were predicted as the column's."""
    counts = torch.zeros(class_count, class_count, dtype=torch.int64)
    for one in predictions:
        counts[one.label, one.classes[0]] += 1
    return counts


def write_confusion(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """The matrix of :func:`confusion` as CSV, with class names in the first line and column."""
    names = [escape(name) for name in classes]
    write_csv(path, ["true class", *names], ([name, *row] for name, row in zip(names, counts.tolist(), strict=True)))


def real_accuracy(predictions: Iterable[ClassPrediction], real: Mapping[str, list[int]]) -> float:
    """Share of ImageNet's validation pictures whose most likely class is one of their real labels; those without do not count.

    Args:
        real: picture name to class numbers (Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159; real.json).

    Raises:
        ValueError: none of the pictures has real labels.
    """
    hits = [one.classes[0] in real[Path(one.name).stem] for one in predictions if real.get(Path(one.name).stem)]
    if not hits:
        raise ValueError("no picture has real labels: they are for ImageNet's validation pictures, ILSVRC2012_val_…")
    return sum(hits) / len(hits)


def _divergence(logits: Tensor, teacher: nn.Module, images: Tensor) -> Tensor:
    """``KL(student || teacher)``, mean over the batch: R-MeeTo's direction."""
    with torch.no_grad():
        wanted = teacher(images).float().log_softmax(-1)
    return F.kl_div(wanted, logits.log_softmax(-1), reduction="batchmean", log_target=True)


CLASSIFICATION = Classification()
