"""From a path on the command line to the data set for detection or segmentation that lies there."""

from __future__ import annotations

from pathlib import Path

from skimba.data.coco import InstanceFiles, read_coco
from skimba.data.fashion_mnist import embedded_test_images, holds_fashion_mnist, load_fashion_mnist
from skimba.data.label_maps import ADE20K_FOLDERS, MappedFiles, read_ade20k, read_label_maps
from skimba.data.pictures import Mode
from skimba.data.scene_targets import SceneMaps, SceneObjects, dense_scenes
from skimba.data.scenes import FashionScenes

SPLITS = {"train": "train", "test": "val"}  # as data sets name them
CLASSES = "classes.txt"


def open_objects(path: str | Path | None, split: str, mode: Mode = "RGB") -> InstanceFiles | SceneObjects:
    """A data set for detection: COCO's folders (``annotations/instances_val2017.json`` and ``val2017/``; the year may be another
    or left out), or fashion scenes of up to four items, from Fashion-MNIST's IDX files.

    Args:
        path: None: the 1,000 test scenes of the items in the package, always the same.
        split: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: an unknown split, or what is there cannot be used.
    """
    if (scenes := _scenes(path, split)) is not None:
        return SceneObjects(scenes, mode)
    root = Path(str(path))
    found = sorted((root / "annotations").glob(f"instances_{SPLITS[split]}*.json"))
    if len(found) != 1:
        got = ", ".join(file.name for file in found) or "none"
        raise FileNotFoundError(f"{root} needs one annotations/instances_{SPLITS[split]}….json, got {got}")
    images = found[0].stem.removeprefix("instances_")
    inside = root / "images" / images
    return read_coco(found[0], inside if inside.is_dir() else root / images, mode)


def open_maps(path: str | Path | None, split: str, mode: Mode = "RGB") -> MappedFiles | SceneMaps:
    """A data set for segmentation: ADE20K's folders; or ``images/`` and ``annotations/`` with a folder for each split and a
    ``classes.txt`` that names a class in each line, from 0 (255 in a map is ignored); or fashion scenes.

    Args, Raises: as :func:`open_objects`.
    """
    if (scenes := _scenes(path, split)) is not None:
        return SceneMaps(scenes, mode)
    root = Path(str(path))
    if (root / CLASSES).is_file():
        lines = (root / CLASSES).read_text("utf-8").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
        return read_label_maps(
            root / "images" / SPLITS[split], root / "annotations" / SPLITS[split], classes, mode=mode
        )
    if not (root / "images" / ADE20K_FOLDERS[split]).is_dir():
        raise FileNotFoundError(
            f"{root} holds neither ADE20K (images/{ADE20K_FOLDERS[split]}) nor label maps with a {CLASSES}"
        )
    return read_ade20k(root, split, mode)


def _scenes(path: str | Path | None, split: str) -> FashionScenes | None:
    """Fashion scenes, if that is what the path means."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if path is None:
        if split != "test":
            raise ValueError("the items in the package are test items; training needs Fashion-MNIST's files")
        return dense_scenes(embedded_test_images(), split)
    if not Path(path).is_dir():
        raise FileNotFoundError(f"no folder at {path}")
    if holds_fashion_mnist(Path(path), split):
        return dense_scenes(load_fashion_mnist(path, split), split)
    return None
