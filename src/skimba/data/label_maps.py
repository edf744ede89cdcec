"""Pictures with a class for every pixel: ADE20K, and any folder of pictures with label maps as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from skimba.data.coco import Fault
from skimba.data.decoding import EXTENSIONS, open_map
from skimba.data.image_files import ImageFile, ImageFiles, TargetedFiles
from skimba.data.pictures import Mode
from skimba.data.walking import Found, walk
from skimba.runtime.names import escape

IGNORED = 255  # in a map that has been read: a pixel of no class
MAPS = ".png"


class LabelMap(NamedTuple):
    """A target: where a picture's map is.

    Attributes:
        size: of the file in bytes, so that a fingerprint sees a change.
        class_count: numbers in the map are below it, or IGNORED.
        zero_ignored: the file counts classes from 1, and 0 is ignored, as ADE20K's do.
    """

    path: str
    size: int
    class_count: int
    zero_ignored: bool

    def read(self) -> npt.NDArray[np.int64]:
        """``(height width)``: classes 0 … class_count - 1, and IGNORED.

        Raises:
            FileNotFoundError: it is not there any more.
            ValueError: it cannot be read, or holds another number.
        """
        found = open_map(self.path)
        if self.zero_ignored:
            found = np.where(found == 0, IGNORED, found - 1)
        wrong = found[(found >= self.class_count) & (found != IGNORED)]
        if len(wrong):
            first, said = (1, "and 0") if self.zero_ignored else (0, f"and {IGNORED}")
            raise ValueError(
                f"{escape(self.path)} has the label {int(wrong[0]) + first}; known: {first} … "
                f"{self.class_count - 1 + first} {said} for pixels of no class"
            )
        return found


@dataclass(frozen=True, eq=False)
class MappedFiles(TargetedFiles):
    """A :class:`~skimba.data.Pictures` whose targets are :class:`LabelMap`.

    Attributes:
        faults: pictures without a map, which are left out, and maps without a picture.
    """

    targets: Sequence[LabelMap]
    classes: tuple[str, ...]
    faults: tuple[Fault, ...] = ()

    def target(self, index: int) -> LabelMap:
        return self.targets[index]

    def picture(self, index: int) -> Image.Image:
        return self.files.picture(index)


def read_label_maps(
    images: str | Path, maps: str | Path, classes: Sequence[str], zero_ignored: bool = False, mode: Mode = "RGB"
) -> MappedFiles:
    """A folder of pictures, and one of PNG files that have the same names and folders save for the suffix.

    Args:
        classes: names of all classes in order.
        zero_ignored: see :class:`LabelMap`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no picture has a map, or there are more classes than a map with IGNORED can hold.
    """
    images, maps = Path(images), Path(maps)
    for folder in (images, maps):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder at {folder}")
    if not 0 < len(classes) <= IGNORED:
        raise ValueError(f"label maps may tell 1 … {IGNORED} classes apart, got {len(classes)}")
    there = {_key(one, maps): one for one in walk(maps) if one.path.suffix.lower() == MAPS and not one.unusable}
    pictures = {_key(one, images): one for one in walk(images) if one.unusable or one.path.suffix.lower() in EXTENSIONS}
    faults = [Fault(escape(key), "no map") for key in pictures.keys() - there.keys()]
    faults += [Fault(escape(key), "a map of no picture") for key in there.keys() - pictures.keys()]
    files, targets = [], []
    for key in sorted(pictures.keys() & there.keys()):
        path, unusable = pictures[key]
        files.append(ImageFile(str(path), str(path.relative_to(images)), unusable=unusable))
        label_map = there[key].path
        targets.append(LabelMap(str(label_map), label_map.stat().st_size, len(classes), zero_ignored))
    if not files:
        raise ValueError(f"no picture in {images} has a map in {maps}")
    return MappedFiles(ImageFiles(files, tuple(classes), mode), targets, tuple(classes), tuple(sorted(faults)))


def read_ade20k(root: str | Path, split: str, mode: Mode = "RGB") -> MappedFiles:
    """ADE20K as the scene parsing benchmark of 2016 packs it: ``images/`` and ``annotations/``, each with ``training/`` and
    ``validation/``; 150 classes, 0 is ignored.

    Raises:
        FileNotFoundError: no such folders.
        ValueError: an unknown split, or no picture with a map.
    """
    if split not in ADE20K_FOLDERS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(ADE20K_FOLDERS)}")
    folder = ADE20K_FOLDERS[split]
    images, maps = Path(root) / "images" / folder, Path(root) / "annotations" / folder
    return read_label_maps(images, maps, ADE20K_CLASSES, zero_ignored=True, mode=mode)


def _key(found: Found, root: Path) -> str:
    return str(found.path.relative_to(root).with_suffix(""))


ADE20K_FOLDERS = {"train": "training", "test": "validation"}
_ADE20K = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, "
    "door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, "
    "field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, "
    "signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, "
    "stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, "
    "coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen island, computer, "
    "swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning, "
    "streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, "
    "ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, "
    "swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, "
    "trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, "
    "vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, "
    "glass, clock, flag"
)
ADE20K_CLASSES = tuple(_ADE20K.split(", "))
