"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv 1708.07747; MIT licence): 28×28 grey pictures of ten kinds of clothing."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch

from skimba.data.idx import read_idx
from skimba.data.labelled import LabelledImages

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN, STD = 0.2860, 0.3530  # of the training images
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where `apt install dataset-fashion-mnist` puts it
PREFIX = {"train": "train", "test": "t10k"}
IMAGE_SIZE = (28, 28)


def load_fashion_mnist(folder: str | Path, split: str) -> LabelledImages:
    """One split of the data set, from its four IDX files (gzip-compressed or not).

    Args:
        folder: where the files are, under their original names.
        split: ``"train"`` (60,000 images) or ``"test"`` (10,000).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an unknown split, or files with unexpected contents.
    """
    if split not in PREFIX:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(PREFIX)}")
    return _load(Path(folder), PREFIX[split])


def holds_fashion_mnist(folder: Path, split: str) -> bool:
    """Whether the images of that split are there."""
    return any((folder / f"{PREFIX[split]}-images-idx3-ubyte{packed}").is_file() for packed in ("", ".gz"))


def embedded_test_images() -> LabelledImages:
    """The first 1,000 test images, which come with the package."""
    return _load(Path(str(resources.files("skimba") / "assets" / "fashion_mnist")), "t1k")


def _load(folder: Path, prefix: str) -> LabelledImages:
    pixels = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    if pixels.shape[1:] != IMAGE_SIZE or labels.ndim != 1:
        raise ValueError(f"{folder} does not hold Fashion-MNIST: got images {pixels.shape} and labels {labels.shape}")
    return LabelledImages(torch.from_numpy(pixels)[:, None], torch.from_numpy(labels).long(), CLASSES, MEAN, STD)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {name} (or {name}.gz) in {folder}; Fashion-MNIST is Debian's package dataset-fashion-mnist, or "
        "https://github.com/zalandoresearch/fashion-mnist"
    )
