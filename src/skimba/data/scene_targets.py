"""Fashion scenes as data sets for detection and for segmentation, as any other: pictures and their targets."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from skimba.data.instances import Instance, Instances, runs_of
from skimba.data.labelled import LabelledImages
from skimba.data.pictures import Mode
from skimba.data.scenes import FashionScenes, Scene

SIZE = 128  # pixels: 256 tokens of 8 × 8
MOST_ITEMS = 4
SIDE = (0.25, 0.5)  # of an item: smaller than where one item decides the class, so that four find room
BACKGROUND = "background"


def dense_scenes(items: LabelledImages, split: str, seed: int = 0) -> FashionScenes:
    """Scenes of up to MOST_ITEMS items, as detection and segmentation have them; with the package's items the held-back 1,000."""
    return FashionScenes(items, split, SIZE, MOST_ITEMS, seed, SIDE)


@dataclass(frozen=True, eq=False)
class SceneObjects:
    """A :class:`~skimba.data.Pictures` whose targets are :class:`~skimba.data.Instances`: the items of each scene.

    Each call makes the scene anew, in a few milliseconds: nothing is held in memory.
    """

    scenes: FashionScenes
    mode: Mode = "RGB"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.scenes.items.classes

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return str(index)

    def stamp(self, index: int) -> int:
        return _stamp(self.scenes[index])

    def picture(self, index: int) -> Image.Image:
        return _picture(self.scenes[index], self.mode)

    def target(self, index: int) -> Instances:
        scene = self.scenes[index]
        things = (
            Instance(label, (x0, y0, x1, y1), runs_of(mask.numpy()), area=float(mask.sum()))
            for label, (x0, y0, x1, y1), mask in zip(
                scene.labels.tolist(), scene.boxes.tolist(), scene.masks, strict=True
            )
        )
        return Instances(self.scenes.size, self.scenes.size, tuple(things))


class SceneMap:
    """A target: the class of each pixel of a scene, 0 for the photograph and an item's class + 1 where it is seen."""

    def __init__(self, labels: Tensor, masks: Tensor) -> None:
        self._map = (masks * (labels[:, None, None] + 1)).sum(0).numpy()

    def read(self) -> npt.NDArray[np.int64]:
        """``(height width)``."""
        return self._map

    def __repr__(self) -> str:
        return f"SceneMap({zlib.crc32(self._map.tobytes())})"


@dataclass(frozen=True, eq=False)
class SceneMaps:
    """A :class:`~skimba.data.Pictures` whose targets are :class:`SceneMap`. Its first class is the photograph."""

    scenes: FashionScenes
    mode: Mode = "RGB"

    @property
    def classes(self) -> tuple[str, ...]:
        return (BACKGROUND, *self.scenes.items.classes)

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return str(index)

    def stamp(self, index: int) -> int:
        return _stamp(self.scenes[index])

    def picture(self, index: int) -> Image.Image:
        return _picture(self.scenes[index], self.mode)

    def target(self, index: int) -> SceneMap:
        scene = self.scenes[index]
        return SceneMap(scene.labels, scene.masks)


def _stamp(scene: Scene) -> int:
    return zlib.crc32(scene.pixels.numpy().tobytes())


def _picture(scene: Scene, mode: Mode) -> Image.Image:
    return Image.fromarray(scene.pixels.movedim(0, -1).numpy()).convert(mode)
