"""Fashion scenes as data sets for detection and for segmentation, as any other: pictures and their targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from skimba.data.instances import Instance, Instances, runs_of
from skimba.data.labelled import LabelledImages
from skimba.data.pictures import Mode
from skimba.data.scenes import FashionScenes

SIZE = 128  # pixels: 256 tokens of 8 × 8
MOST_ITEMS = 4
SIDE = (0.25, 0.5)  # of an item: smaller than where one item decides the class, so that four find room
BACKGROUND = "background"


def dense_scenes(items: LabelledImages, split: str, seed: int = 0) -> FashionScenes:
    """Scenes of up to MOST_ITEMS items, as detection and segmentation have them; with the package's items the held-back 1,000."""
    return FashionScenes(items, split, SIZE, MOST_ITEMS, seed, SIDE)


@dataclass(frozen=True, eq=False)
class _Scenes:
    """What scenes are as pictures. Each call makes the scene anew, in a few milliseconds: nothing is held in memory."""

    scenes: FashionScenes
    mode: Mode = "RGB"

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return str(index)

    def stamp(self, index: int) -> int:
        """Of the item that the scene is made for; what else decides it stands in the target."""
        return self.scenes.items.stamp(index)

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(self.scenes[index].pixels.movedim(0, -1).numpy()).convert(self.mode)


@dataclass(frozen=True, eq=False)
class SceneObjects(_Scenes):
    """A :class:`~skimba.data.Pictures` for detection: the items of each scene."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.scenes.items.classes

    def target(self, index: int) -> SceneInstances:
        return SceneInstances(self.scenes, index)


@dataclass(frozen=True, eq=False)
class SceneMaps(_Scenes):
    """A :class:`~skimba.data.Pictures` for segmentation. Its first class is the photograph."""

    @property
    def classes(self) -> tuple[str, ...]:
        return (BACKGROUND, *self.scenes.items.classes)

    def target(self, index: int) -> SceneMap:
        return SceneMap(self.scenes, index)


@dataclass(frozen=True)
class _SceneTarget:
    """Of a scene, made when it is read; in words what decides it, so that a fingerprint costs little."""

    scenes: FashionScenes
    index: int

    def __repr__(self) -> str:
        of = self.scenes
        drawn = f"{of.split}, {of.size}, {of.most_items}, {of.seed}, {of.side}"
        return f"{type(self).__name__}({self.index}, {int(of.items.labels[self.index])}, {drawn})"


class SceneInstances(_SceneTarget):
    """The items of a scene."""

    def read(self) -> Instances:
        scene = self.scenes[self.index]
        found = zip(scene.labels.tolist(), scene.boxes.tolist(), scene.masks, strict=True)
        things = (
            Instance(k, (x0, y0, x1, y1), runs_of(m.numpy()), area=float(m.sum())) for k, (x0, y0, x1, y1), m in found
        )
        return Instances(self.scenes.size, self.scenes.size, tuple(things))


class SceneMap(_SceneTarget):
    """The class of each pixel of a scene: 0 for the photograph, and an item's class + 1 where it is seen."""

    def read(self) -> npt.NDArray[np.int64]:
        """``(height width)``."""
        scene = self.scenes[self.index]
        return (scene.masks * (scene.labels[:, None, None] + 1)).sum(0).numpy()
