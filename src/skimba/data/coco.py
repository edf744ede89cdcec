"""COCO's instances: a JSON file of boxes, polygons and masks, and a folder of pictures (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from PIL import Image

from skimba.data.decoding import MOST_PIXELS
from skimba.data.image_files import ImageFile, ImageFiles, TargetedFiles
from skimba.data.instances import Box, Instance, Instances, Polygons, Runs, runs_from
from skimba.data.pictures import Mode
from skimba.runtime.files import check_regular
from skimba.runtime.names import escape

LEAST_NUMBERS = 6  # of a polygon: three points
SHOWN = 3  # faults named of each kind


class Fault(NamedTuple):
    """An entry that was left out, or a picture that is not there."""

    where: str
    reason: str


@dataclass(frozen=True, eq=False)
class InstanceFiles(TargetedFiles):
    """A :class:`~skimba.data.Pictures` whose targets are :class:`~skimba.data.Instances`.

    Attributes:
        files: the pictures. One that is listed but not there is a reject when it is read.
        targets: of each picture.
        classes: in the order of their ids.
        image_ids, category_ids: those of the file, by picture and by class: what results are written with.
        faults: what is wrong in the file.
    """

    targets: Sequence[Instances]
    classes: tuple[str, ...]
    image_ids: Sequence[int | str]
    category_ids: Sequence[int]
    faults: tuple[Fault, ...]

    def target(self, index: int) -> Instances:
        return self.targets[index]

    def picture(self, index: int) -> Image.Image:
        found, said = self.files.picture(index), self.targets[index]
        if found.size != (said.width, said.height):
            raise ValueError(
                f"{escape(self.name(index))} is {found.width} by {found.height} pixels, its annotations are for "
                f"{said.width} by {said.height}"
            )
        return found


def read_coco(annotations: str | Path, images: str | Path, mode: Mode = "RGB") -> InstanceFiles:
    """Pictures with the things in them. What is wrong with single entries is counted and named in ``faults``, never fatal:
    a box of no area, an unknown picture or category, a polygon of two points, a mask of another size, a missing file.

    Args:
        annotations: the JSON file.
        images: the folder that its file names are in.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: it is no such JSON file, lists no picture that can be used, or its categories are not clear.
    """
    annotations, images = Path(annotations), Path(images)
    if not images.is_dir():
        raise FileNotFoundError(f"no folder of images at {images}")
    content = _content(annotations)
    labels, names, ids = _categories(content["categories"], annotations)
    faults: list[Fault] = []
    files: dict[int | str, ImageFile] = {}
    sizes: dict[int | str, tuple[int, int]] = {}
    for number, entry in enumerate(content["images"]):
        try:
            key, file, size = _image(entry, images, files)
        except ValueError as error:
            faults.append(Fault(_where("image", entry, number), str(error)))
            continue
        files[key], sizes[key] = file, size
        if file.unusable:
            faults.append(Fault(_where("image", entry, number), "a file that is not there"))
    if not files:
        raise ValueError(
            f"{annotations} lists no picture that can be used ({describe_faults(faults) or 'it is empty'})"
        )
    things: dict[int | str, list[Instance]] = {key: [] for key in files}
    for number, entry in enumerate(content["annotations"]):
        where = _where("annotation", entry, number)
        try:
            key, thing, dropped = _annotation(entry, sizes, labels)
            things[key].append(thing)
            faults += [Fault(where, reason) for reason in dropped]
        except ValueError as error:
            faults.append(Fault(where, str(error)))
    targets = [Instances(*sizes[key], tuple(things[key])) for key in files]
    return InstanceFiles(ImageFiles(list(files.values()), names, mode), targets, names, list(files), ids, tuple(faults))


def describe_faults(faults: Sequence[Fault]) -> str:
    """How many of which kind, the first of each named, in a line; empty if there are none."""
    kinds = Counter(fault.reason for fault in faults)
    said = []
    for reason, count in kinds.most_common():
        named = [fault.where for fault in faults if fault.reason == reason][:SHOWN]
        said.append(f"{count} with {reason} ({', '.join(named)}{', …' if count > SHOWN else ''})")
    return "; ".join(said)


def _content(path: Path) -> dict[str, list[Any]]:
    check_regular(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of nesting
        raise ValueError(f"{path} is not JSON: {error}") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise ValueError(f"{path} is not COCO's: it needs the lists {', '.join(lists)}")
    return content


def _categories(entries: list[Any], path: Path) -> tuple[dict[int, int], tuple[str, ...], list[int]]:
    """Label by category id; names and ids by label."""
    try:
        named = {entry["id"]: entry["name"] for entry in entries}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} has a category without an id and a name") from error
    if not all(type(key) is int and isinstance(name, str) for key, name in named.items()):
        raise ValueError(f"{path} has a category whose id is no whole number, or whose name is no text")
    if not named or len(named) != len(entries):
        raise ValueError(f"{path} needs a category or more, each with an id of its own, got {len(entries)}")
    ids = sorted(named)
    return {key: label for label, key in enumerate(ids)}, tuple(named[key] for key in ids), ids


def _image(entry: Any, folder: Path, known: dict[int | str, ImageFile]) -> tuple[int | str, ImageFile, tuple[int, int]]:
    """Id, file, (height, width). Raises ValueError with what is wrong."""
    if not isinstance(entry, dict) or not isinstance(key := entry.get("id"), int | str):
        raise ValueError("no id")
    if key in known:
        raise ValueError("the id of another image")
    name, height, width = (entry.get(field) for field in ("file_name", "height", "width"))
    if not (type(height) is int and type(width) is int and height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise ValueError("no possible height and width")
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError("no file name")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError("a file name that leads out of the folder")
    path = folder / name
    return key, ImageFile(str(path), name, unusable="" if path.exists() else "is listed but not there"), (height, width)


def _annotation(
    entry: Any, sizes: dict[int | str, tuple[int, int]], labels: dict[int, int]
) -> tuple[int | str, Instance, list[str]]:
    """The picture's id, the thing, and what was left out of it. Raises ValueError with what is wrong."""
    if not isinstance(entry, dict):
        raise ValueError("no fields")
    key, category = entry.get("image_id"), entry.get("category_id")
    if not isinstance(key, int | str) or key not in sizes:
        raise ValueError("an unknown image")
    if not isinstance(category, int) or category not in labels:
        raise ValueError("an unknown category")
    height, width = sizes[key]
    box = _box(entry.get("bbox"), height, width)
    shape, dropped = _shape(entry.get("segmentation"), height, width)
    area: Any = entry.get("area")
    size = float(area) if _numbers([area]) and area >= 0 else None
    return key, Instance(labels[category], box, shape, entry.get("iscrowd") == 1, size), dropped


def _box(given: Any, height: int, width: int) -> Box:
    """COCO's ``x y width height`` as corners, within the picture."""
    if not _numbers(given) or len(given) != 4:
        raise ValueError("no box")
    x, y, wide, high = map(float, given)
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + wide, float(width)), min(y + high, float(height))
    if not (x0 < x1 and y0 < y1):
        raise ValueError("a box of no area in the picture")
    return x0, y0, x1, y1


def _shape(given: Any, height: int, width: int) -> tuple[Polygons | Runs, list[str]]:
    if isinstance(given, dict):
        if given.get("size") != [height, width]:
            raise ValueError("a mask of another size than the picture")
        return runs_from(given.get("counts"), height, width), []
    if not isinstance(given, list) or not given:
        raise ValueError("no segmentation")
    bound = 2.0 * max(height, width)  # far outside COCO's tools would count beyond their integers
    sound = [
        array("d", map(float, one))
        for one in given
        if _numbers(one) and len(one) >= LEAST_NUMBERS and len(one) % 2 == 0 and all(-bound <= v <= bound for v in one)
    ]
    if not sound:
        raise ValueError("no polygon of three points or more in the picture")
    return tuple(sound), ["a polygon that is none, left out"] * (len(given) - len(sound))


def _numbers(given: Any) -> bool:
    """A list of finite numbers."""
    return isinstance(given, list) and all(type(v) in (int, float) and abs(v) < 1e12 for v in given)


def _where(what: str, entry: Any, number: int) -> str:
    key = entry.get("id") if isinstance(entry, dict) else None
    return f"{what} {key}" if isinstance(key, int) else f"{what} at place {number}"
