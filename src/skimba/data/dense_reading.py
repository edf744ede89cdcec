"""From a picture and what is in it to what a detector or a segmenter is trained on (torchvision's transforms, version 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from skimba.data.instances import Instances
from skimba.data.label_maps import IGNORED, LabelMap
from skimba.runtime.names import escape

# A picture as uint8 and what is in it (a dict of boxes, masks and labels, or a map), and both again, changed together.
Changes = Callable[[Any, Any], tuple[Any, Any]]
TRIES = 10  # to find a part of a picture that is not nearly all of one class


class Named(Protocol):
    """What a reader needs of a data set."""

    def name(self, index: int) -> str: ...

    def picture(self, index: int) -> Image: ...

    def target(self, index: int) -> Any: ...


class ReadableMap(Protocol):
    """The target of a picture for segmentation."""

    def read(self) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True)
class PictureReader:
    """For evaluation and prediction: pictures of any size, float32 ``(c height width)`` in 0 … 1, in lists, without targets.

    Attributes:
        least: pixels that a picture must be high and wide, or it cannot be read.
    """

    least: int = 1

    def read(self, pictures: Named, index: int) -> tuple[Tensor, None]:
        return _scaled(functional.pil_to_tensor(_picture(pictures, index, self.least))), None

    def collate(self, samples: list[tuple[Tensor, None]]) -> tuple[list[Tensor], list[None]]:
        return [image for image, _ in samples], [None for _ in samples]


@dataclass(frozen=True)
class MeasurableReader(PictureReader):
    """As :class:`PictureReader`, and a picture cannot be read either if its label map cannot, or has another size: its
    prediction could not be measured."""

    def read(self, pictures: Named, index: int) -> tuple[Tensor, None]:
        picture = _picture(pictures, index, self.least)
        if isinstance(pictures.target(index), LabelMap):
            _map_of(picture, pictures, index)
        return _scaled(functional.pil_to_tensor(picture)), None


@dataclass(frozen=True)
class ObjectReader:
    """For training a detector: lists of pictures and of targets as torchvision's detectors take them.

    A target has ``boxes (n 4)`` float32, ``labels (n)`` int64 from 1 (0 is the background), ``masks (n height width)`` bool;
    n = 0 is allowed. Crowds are left out.

    Attributes:
        least: pixels that a picture must be high and wide, or it cannot be read.
    """

    changes: Changes
    least: int = 1

    def read(self, pictures: Named, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = tv_tensors.Image(_picture(pictures, index, self.least)), pictures.target(index).read()
        image, found = self.changes(image, _objects(target))
        return _scaled(image), {name: value.as_subclass(Tensor) for name, value in found.items()}

    def collate(self, samples: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        return [image for image, _ in samples], [target for _, target in samples]


@dataclass(frozen=True)
class MapReader:
    """For training a segmenter: pictures ``(b c height width)`` float32 in 0 … 1, maps ``(b height width)`` int64.

    ``changes`` brings all pictures to one size. A pixel of IGNORED is not learned.
    """

    changes: Changes

    def read(self, pictures: Named, index: int) -> tuple[Tensor, Tensor]:
        picture = pictures.picture(index)
        target = _map_of(picture, pictures, index)
        image, classes = self.changes(tv_tensors.Image(picture), tv_tensors.Mask(torch.from_numpy(target)))
        return _scaled(image), classes.as_subclass(Tensor)

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if not samples:
            return torch.empty(0), torch.empty(0, dtype=torch.int64)
        return torch.stack([image for image, _ in samples]), torch.stack([classes for _, classes in samples])


def mirrored() -> Changes:
    """Mirrored by chance, as PlainMamba's detectors are trained; boxes of less than a pixel leave, with masks and labels."""
    return v2.Compose([v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()])


def jittered(side: int) -> Changes:
    """Large-scale jitter: 0.1 to 2 times the size that fits into a square, a part of it or zeros around it, mirrored by chance.

    Source: Ghiasi et al., "Simple copy-paste" (arXiv 2012.07177), as ViTDet trains.
    """
    return v2.Compose(
        [
            v2.ScaleJitter((side, side), (0.1, 2.0), antialias=True),
            v2.RandomCrop(side, pad_if_needed=True),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
        ]
    )


@dataclass(frozen=True)
class CroppedMaps:
    """As UperNet is trained on ADE20K: resized to fit (short side, long side) times 0.5 to 2, a square part in which no class has
    more than a share of the pixels (if one is found in TRIES), mirrored by chance, colours changed.

    Zeros, and IGNORED in the map, fill a picture that is smaller than the part.
    """

    side: int = 512
    largest: tuple[int, int] = (512, 2048)
    ratio: tuple[float, float] = (0.5, 2.0)
    most_of_one: float = 0.75

    def __call__(self, image: Any, classes: Any) -> tuple[Any, Any]:
        height, width = image.shape[-2:]
        scale = min(max(self.largest) / max(height, width), min(self.largest) / min(height, width))
        scale *= torch.empty(()).uniform_(*self.ratio).item()
        size = [max(round(height * scale), 1), max(round(width * scale), 1)]
        image = functional.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
        classes = functional.resize(classes, size, InterpolationMode.NEAREST_EXACT)
        top, left = self._part(classes)
        image, classes = (functional.crop(one, top, left, self.side, self.side) for one in (image, classes))
        outside = [0, 0, max(self.side - size[1], 0), max(self.side - size[0], 0)]
        classes[..., self.side - outside[3] :, :] = IGNORED
        classes[..., self.side - outside[2] :] = IGNORED
        return _finish(image, classes)

    def _part(self, classes: Tensor) -> tuple[int, int]:
        """Top and left of the part."""
        rows, columns = (max(length - self.side, 0) + 1 for length in classes.shape[-2:])
        for _ in range(TRIES):
            top, left = int(torch.randint(rows, ())), int(torch.randint(columns, ()))
            part = classes[..., top : top + self.side, left : left + self.side]
            counts = torch.bincount(part[part != IGNORED].flatten())
            if (counts > 0).sum() > 1 and counts.max() < self.most_of_one * counts.sum():
                break
        return top, left


def mirrored_maps() -> Changes:
    """Mirrored by chance: for pictures that are of one size already."""
    return v2.RandomHorizontalFlip()


_finish = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomPhotometricDistort()])


def _picture(pictures: Named, index: int, least: int) -> Image:
    """Raises ValueError: it cannot be read, or has a side below ``least`` pixels."""
    picture = pictures.picture(index)
    if min(picture.size) < least:
        raise ValueError(
            f"{escape(pictures.name(index))} is {picture.width} by {picture.height} pixels, smaller than a patch ({least} px)"
        )
    return picture


def _map_of(picture: Image, pictures: Named, index: int) -> npt.NDArray[np.int64]:
    """Its label map. Raises ValueError: that cannot be read, or is of another size."""
    target: npt.NDArray[np.int64] = pictures.target(index).read()
    if picture.size != target.shape[::-1]:
        raise ValueError(
            f"{escape(pictures.name(index))} is {picture.width} by {picture.height} pixels, its map {target.shape[1]} by "
            f"{target.shape[0]}"
        )
    return target


def _scaled(image: Tensor) -> Tensor:
    return functional.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)


def _objects(target: Instances) -> dict[str, Any]:
    kept = target._replace(things=tuple(thing for thing in target.things if not thing.crowd))
    boxes = torch.tensor([thing.box for thing in kept.things], dtype=torch.float32).reshape(-1, 4)
    size = (kept.height, kept.width)
    return {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "labels": torch.tensor([thing.label + 1 for thing in kept.things], dtype=torch.int64),
        "masks": tv_tensors.Mask(torch.from_numpy(kept.masks())),
    }
