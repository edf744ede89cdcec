"""Opens the data set at a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skimba.data.clips import ClipFiles, read_clip_folder, read_clip_list
from skimba.data.fashion_mnist import (
    DEBIAN_FOLDER,
    PREFIX,
    embedded_test_images,
    holds_fashion_mnist,
    load_fashion_mnist,
)
from skimba.data.image_files import imagenet_classes, read_image_folder, read_labelled_list, read_shards
from skimba.data.moving import MovingItems
from skimba.data.pictures import Mode, Pictures
from skimba.data.scenes import FashionScenes
from skimba.data.shards import SHARD

SPLITS = {"train": ("train",), "test": ("val", "validation", "test")}  # names of a split's folder or of its shards


def folder_of_split(root: Path, split: str, what: str) -> Path:
    """The subfolder that a split's name says, or the folder itself. Raises FileNotFoundError if there is none."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of {what} at {root}")
    return next((root / name for name in SPLITS[split] if (root / name).is_dir()), root)


def open_clips(
    path: str | Path | None, split: str, *, classes: Sequence[str] = (), labels: str | Path | None = None
) -> ClipFiles | MovingItems:
    """The clips in a folder: class folders in it or in the split's subfolder, or a flat folder with a list of labels.
    Fashion-MNIST's files, or None for its 1,000 embedded images, make moving items.

    Args:
        split: ``"train"`` or ``"test"``.
        classes: the model's, for a list of labels.
        labels: see :func:`~skimba.data.read_labelled_list`.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_pictures`.
    """
    if path is None or holds_fashion_mnist(Path(path), split) or Path(path) == DEBIAN_FOLDER:
        return MovingItems(embedded_test_images() if path is None else load_fashion_mnist(path, split), split)
    folder = folder_of_split(Path(path), split, "clips")
    return read_clip_folder(folder) if labels is None else read_clip_list(folder, labels, classes)


def open_pictures(
    path: str | Path | None,
    split: str,
    *,
    mode: Mode = "RGB",
    num_classes: int | None = None,
    labels: str | Path | None = None,
    scenes: bool = False,
) -> Pictures:
    """The data set in a folder.

    Fashion-MNIST's IDX files; or, there or in a subfolder named by the split (``train``; ``val``, ``validation``, ``test``),
    class folders or tar shards (``train-*.tar`` too), or images with a list of labels. Folders and shards named by synsets take
    ImageNet's class numbers if the model has 1,000 classes, so that a subset of ImageNet works.

    Args:
        path: None for the 1,000 embedded images.
        split: ``"train"`` or ``"test"``.
        mode: what the model takes: ``"RGB"`` or ``"L"``.
        num_classes: the model's.
        labels: see :func:`~skimba.data.read_labelled_list`.
        scenes: Fashion-MNIST's items on photographs.

    Raises:
        FileNotFoundError: no such folder or split.
        ValueError: the folder's contents cannot be used.
    """
    if path is None or holds_fashion_mnist(Path(path), split) or scenes or Path(path) == DEBIAN_FOLDER:
        items = embedded_test_images() if path is None else load_fashion_mnist(path, split)
        return FashionScenes(items, split).labelled() if scenes else items
    root, folder = Path(path), folder_of_split(Path(path), split, "images")
    shards = sorted(folder.glob(f"*{SHARD}"))
    if folder == root:
        named = [shard for shard in shards if shard.name.startswith(SPLITS[split])]
        others = [name for names in SPLITS.values() for name in names]
        if shards and not named and any(shard.name.startswith(tuple(others)) for shard in shards):
            raise FileNotFoundError(f"{root} holds no shard of the split {split} ({', '.join(SPLITS[split])}-….tar)")
        shards = named or shards
    imagenet = imagenet_classes() if num_classes == 1000 else None
    if shards:
        return read_shards(shards, imagenet, mode)
    if labels is not None:
        if imagenet is None:
            raise ValueError(f"a list of labels is for ImageNet's 1,000 classes; the model has {num_classes}")
        return read_labelled_list(folder, labels, imagenet, mode)
    if not any(child.is_dir() for child in folder.iterdir()):
        raise FileNotFoundError(
            f"{folder} holds neither class folders nor {SHARD} shards nor Fashion-MNIST "
            f"(no {PREFIX[split]}-images-idx3-ubyte[.gz]); "
            "flat images need a list of labels"
        )
    synsets = imagenet is not None and all(child.name in imagenet for child in folder.iterdir() if child.is_dir())
    return read_image_folder(folder, imagenet if synsets else None, mode)
