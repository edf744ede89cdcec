"""From the command line's arguments to the pictures of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from skimba.cli._app import warn
from skimba.cli._models import mode_of
from skimba.cli._options import DataOptions
from skimba.data import (
    ImageFiles,
    InstanceFiles,
    MappedFiles,
    Pictures,
    describe_faults,
    find_clips,
    find_images,
    open_clips,
    open_maps,
    open_objects,
    open_pictures,
)
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.models import TokenModel


def open_split(
    model: TokenModel | DenseModel, given: DataOptions, split: str, folder: Path | None, classes: int | None = None
) -> Pictures:
    """The pictures of a split for what the model is asked.

    Args:
        folder: in place of the one given; None: what comes with the package.
        classes: of a classifier, if they are decided.

    Raises:
        FileNotFoundError, ValueError: they cannot be used, or an option does not go with the task.
    """
    return OPENERS[model.task](model, given, split, folder, classes)


def find_files(model: TokenModel | DenseModel, paths: Iterable[Path]) -> ImageFiles:
    """All pictures, or clips, in files and folders, without classes.

    Raises:
        FileNotFoundError, ValueError: as :func:`skimba.data.find_images`.
    """
    return find_clips(paths) if model.task == "clips" else find_images(paths, mode_of(model))


def one_batch(model: TokenModel | DenseModel, images: Any) -> Tensor:
    """What a reader collated for the model, as one batch: a detector's or segmenter's pictures normalised, and as large as it is
    made for."""
    if isinstance(model, DenseModel):
        size = list(model.img_size)
        return torch.stack([functional.resize(model.pictures.normalize(image), size) for image in images])
    batch: Tensor = images
    return batch


def _classes(
    model: TokenModel | DenseModel, given: DataOptions, split: str, folder: Path | None, classes: int | None
) -> Pictures:
    labels = given.labels if split == "test" else None
    return open_pictures(folder, split, mode=mode_of(model), num_classes=classes, labels=labels, scenes=given.scenes)


def _clips(
    model: TokenModel | DenseModel, given: DataOptions, split: str, folder: Path | None, classes: int | None
) -> Pictures:
    names = tokens_of(model).pretrained_cfg.get("label_names") or [str(n) for n in range(tokens_of(model).num_classes)]
    return open_clips(folder, split, classes=names, labels=given.labels if split == "test" else None)


def _dense(opened: Callable[..., Pictures]) -> Callable[..., Pictures]:
    def open_dense(
        model: TokenModel | DenseModel, given: DataOptions, split: str, folder: Path | None, classes: int | None
    ) -> Pictures:
        if given.labels is not None:
            raise ValueError(f"--labels is for classification, and this model is for {model.task}")
        pictures = opened(folder, split, mode_of(model))
        if isinstance(pictures, InstanceFiles | MappedFiles) and pictures.faults:
            warn(f"left out of the {split} set: {describe_faults(pictures.faults)}")
        return pictures

    return open_dense


# By task: (model, options, split, folder, classes) -> the pictures. A detector's or segmenter's scenes need no option.
OPENERS: dict[str, Callable[..., Pictures]] = {
    "classification": _classes,
    "clips": _clips,
    "detection": _dense(open_objects),
    "segmentation": _dense(open_maps),
}
