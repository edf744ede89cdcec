"""What is in a picture, thing by thing: class, box, outline or mask. All plain data, so that a fingerprint holds it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]


class Runs(NamedTuple):
    """A mask as the lengths of runs of one value, down the columns one after the other, 0 first: COCO's RLE."""

    height: int
    width: int
    counts: array[int]

    def mask(self) -> Mask:
        """``(height width)``."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, np.asarray(self.counts)).reshape(self.width, self.height).T


Polygons = tuple["array[float]", ...]  # each x y x y …, in pixels


class Instance(NamedTuple):
    """A thing.

    Attributes:
        label: its place in the data set's classes.
        box: ``x0 y0 x1 y1`` in pixels.
        shape: polygons, which together outline it, or runs.
        crowd: a region of many things of that class: not to be learned, and no mistake if found.
        area: in pixels, as the data set says; None: of the mask.
    """

    label: int
    box: Box
    shape: Polygons | Runs
    crowd: bool = False
    area: float | None = None


class Instances(NamedTuple):
    """The target of a picture: its size, and the things in it. None is allowed: the picture is background."""

    height: int
    width: int
    things: tuple[Instance, ...]

    def read(self) -> Instances:
        """Itself: where a target is made or read only when it is needed, this does so."""
        return self

    def masks(self) -> Mask:
        """Of all things, ``(n height width)``. Raises ImportError if there are polygons and pycocotools is not installed."""
        found = np.zeros((len(self.things), self.height, self.width), bool)
        for mask, thing in zip(found, self.things, strict=True):
            mask[:] = mask_of(thing.shape, self.height, self.width)
        return found


class ReadableInstances(Protocol):
    """The target of a picture for detection."""

    def read(self) -> Instances: ...


class WithInstances(Protocol):
    """A data set for detection."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def target(self, index: int) -> ReadableInstances: ...


def mask_of(shape: Polygons | Runs, height: int, width: int) -> Mask:
    """The pixels of a shape, as COCO's own tools draw it. Raises ImportError: polygons, and pycocotools is not installed."""
    if isinstance(shape, Runs):
        return shape.mask()
    coco = pycocotools_mask()
    drawn = coco.merge(coco.frPyObjects([polygon.tolist() for polygon in shape], height, width))
    return runs_from(drawn["counts"].decode(), height, width).mask()


def runs_of(mask: Mask) -> Runs:
    """A mask ``(height width)`` as runs."""
    values = np.concatenate([[False], mask.T.reshape(-1)])
    changes = np.flatnonzero(values[1:] != values[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    height, width = mask.shape
    return Runs(height, width, array("I", counts.tolist()))


def runs_from(counts: object, height: int, width: int) -> Runs:
    """COCO's RLE, a list of lengths or its compressed text, as runs.

    Raises:
        ValueError: it is neither, or does not fill the picture.
    """
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(one) is int and 0 <= one <= height * width for one in lengths):
        raise ValueError("runs that are no list of lengths")
    if sum(lengths) != height * width:
        raise ValueError("runs that do not fill the picture")
    return Runs(height, width, array("I", lengths))


def text_of(runs: Runs) -> str:
    """Runs as COCO's compressed text, the inverse of :func:`runs_from`.

    Source: cocoapi, ``common/maskApi.c``, ``rleToString``.
    """
    text: list[str] = []
    counts = runs.counts
    for place, length in enumerate(counts):
        value = length - (counts[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)


def as_coco(pictures: WithInstances) -> dict[str, Any]:
    """The targets of a data set as the JSON that COCO's tools take; ids are places in the data set, and places in its classes.

    Crowds are in it.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(pictures)):
        target = pictures.target(index).read()
        images.append({"id": index, "height": target.height, "width": target.width})
        for thing in target.things:
            annotations.append({"id": len(annotations) + 1, "image_id": index, **_annotation(thing, target)})
    categories = [{"id": label, "name": name} for label, name in enumerate(pictures.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def pycocotools_mask() -> Any:
    """The module that draws COCO's polygons. Raises ImportError where it is not installed."""
    try:  # here, since it is an extra
        from pycocotools import mask
    except ImportError as error:
        raise ImportError("polygons need pycocotools: pip install 'skimba[detection]'") from error
    return mask


def _annotation(thing: Instance, of: Instances) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    shape: Any = [polygon.tolist() for polygon in thing.shape] if not isinstance(thing.shape, Runs) else None
    return {
        "category_id": thing.label,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": shape or {"size": [of.height, of.width], "counts": thing.shape.counts.tolist()},  # type: ignore[union-attr]
        "iscrowd": int(thing.crowd),
        "area": float(mask_of(thing.shape, of.height, of.width).sum()) if thing.area is None else thing.area,
    }


def _unpacked(text: str) -> list[int]:
    """The lengths in COCO's compressed RLE: 5 bits a character, the differences to the length before the last.

    Source: cocoapi, ``common/maskApi.c``, ``rleFrString``.
    """
    lengths: list[int] = []
    for difference in _numbers(text):
        lengths.append(difference + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths


def _numbers(text: str) -> Iterator[int]:
    value = shift = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("runs that are no COCO text")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:  # the last of this number
            yield value - (1 << shift) if bits & 0x10 else value
            value = shift = 0
    if shift:
        raise ValueError("runs that are no COCO text")
