"""Pictures in files: a folder for each class as ImageNet is laid out, a flat folder with a list of labels, or tar shards.

Shards are read in place by the offsets that one pass over their headers finds, not streamed through a shuffle buffer: so an
interrupted training goes on at its very batch, epochs are shuffled as a whole, and evaluation sees each picture once.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from timm.data import ImageNetInfo

from skimba.data.pictures import UNKNOWN, Mode

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
SHARD, LABEL = ".tar", ".cls"


class ImageFile(NamedTuple):
    """Where a picture's bytes are: a file of its own, or ``size`` bytes of a shard from ``offset`` on."""

    path: str
    name: str
    label: int = UNKNOWN
    offset: int = 0
    size: int | None = None


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A :class:`~skimba.data.Pictures` in files: what the ``read_…`` functions and :func:`find_images` return."""

    files: Sequence[ImageFile]
    classes: tuple[str, ...] = ()
    mode: Mode = "RGB"

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].name

    def label(self, index: int) -> int:
        return self.files[index].label

    def stamp(self, index: int) -> int:
        """Its size in bytes; -1 where there is no such file any more."""
        file = self.files[index]
        if file.size is not None:
            return file.size
        return os.stat(file.path).st_size if os.path.exists(file.path) else -1

    def picture(self, index: int) -> Image.Image:
        file = self.files[index]
        if file.size is None:
            return open_image(file.path, self.mode)
        with open(file.path, "rb") as shard:
            shard.seek(file.offset)
            return _decode(io.BytesIO(shard.read(file.size)), f"{file.path}: {file.name}", self.mode)


def read_image_folder(root: str | Path, classes: Sequence[str] | None = None, mode: Mode = "RGB") -> ImageFiles:
    """A folder with a folder of images for each class.

    Args:
        root: the folder.
        classes: names of all classes in order, of which there may be folders; the folders in alphabetical order if left out.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, a class without an image, or a folder that is none of ``classes``.
    """
    root = Path(root)
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root} holds no class folders")
    names = tuple(classes or (folder.name for folder in folders))
    number = {name: label for label, name in enumerate(names)}
    if unknown := [folder.name for folder in folders if folder.name not in number]:
        raise ValueError(f"{root} holds folders of no known class: {', '.join(unknown[:3])}; known: {_some(names)}")
    files = []
    for folder in folders:
        found = [ImageFile(str(path), str(path.relative_to(root)), number[folder.name]) for path in _images(folder)]
        if not found:
            raise ValueError(f"class folder {folder} holds no image ({', '.join(sorted(EXTENSIONS))})")
        files += found
    return ImageFiles(files, names, mode)


def read_labelled_list(root: str | Path, labels: str | Path, classes: Sequence[str], mode: Mode = "RGB") -> ImageFiles:
    """A flat folder of images and a text file that names their classes, as ImageNet's validation images come.

    Args:
        labels: a line for each image: its name (the suffix may be left out), then a class number or name after a space or a
            comma. What follows is ignored, so that Kaggle's ``LOC_val_solution.csv`` and Caffe's ``val.txt`` both do.
        classes: names of all classes in order.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a class that is not known, an image without a line, or no image at all.
    """
    root = Path(root)
    number = {name: label for label, name in enumerate(classes)}
    label_of: dict[str, int] = {}
    for place, line in enumerate(Path(labels).read_text().splitlines(), 1):
        words = line.replace(",", " ").split()
        if len(words) < 2 or (place == 1 and words[1] not in number and not words[1].isdigit()):
            continue  # an empty line, or the header of a CSV file
        label = number.get(words[1], int(words[1]) if words[1].isdigit() else UNKNOWN)
        if not 0 <= label < len(classes):
            raise ValueError(
                f"{labels}, line {place}: {words[1]!r} is no class; known: 0 … {len(classes) - 1}, {_some(classes)}"
            )
        label_of[Path(words[0]).stem] = label
    paths = _images(_existing(root))
    if unlabelled := [path.name for path in paths if path.stem not in label_of]:
        raise ValueError(f"{labels} has no line for {len(unlabelled)} images of {root}, for instance {unlabelled[0]}")
    if not paths:
        raise ValueError(f"{root} holds no image ({', '.join(sorted(EXTENSIONS))})")
    return ImageFiles([ImageFile(str(p), p.name, label_of[p.stem]) for p in paths], tuple(classes), mode)


def read_shards(paths: Sequence[Path], classes: Sequence[str] | None = None, mode: Mode = "RGB") -> ImageFiles:
    """Pictures in tar files: ``class/name.jpg``, or webdataset's ``name.jpg`` with ``name.cls`` (a class number or name).

    Args:
        classes: names of all classes in order; those found, sorted, if left out (numbers by their value).

    Raises:
        ValueError: a shard that is not a whole tar file, without an image, or with a class that is not known.
    """
    found = [(file, name) for path in paths for file, name in _in_shard(path)]
    named = {name for _, name in found if name is not None}
    if classes is None:
        numbers = named and all(name.isdigit() for name in named)
        last = max(map(int, named)) if numbers else 0
        classes = [str(label) for label in range(last + 1)] if numbers else sorted(named)
    number = {name: label for label, name in enumerate(classes)}
    number |= {str(label): label for label in range(len(classes)) if str(label) in named}
    if unknown := sorted(named - number.keys()):
        raise ValueError(f"the shards hold unknown classes: {', '.join(unknown[:3])}; known: {_some(classes)}")
    files = [file if name is None else file._replace(label=number[name]) for file, name in found]
    return ImageFiles(files, tuple(classes), mode)


def find_images(paths: Iterable[str | Path], mode: Mode = "RGB") -> ImageFiles:
    """All pictures in files, folders (with all that is in them) and tar shards, in order and without their classes.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no image at all.
    """
    files: list[ImageFile] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"nothing at {path}")
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            if file.suffix == SHARD:
                files += [found for found, _ in _in_shard(file)]
            elif file == path or file.suffix.lower() in EXTENSIONS:
                files.append(ImageFile(str(file), str(file)))
    if not files:
        raise ValueError(f"no image in {', '.join(map(str, paths))} ({', '.join(sorted(EXTENSIONS))}, {SHARD})")
    return ImageFiles(files, (), mode)


def imagenet_classes() -> tuple[str, ...]:
    """The synsets of ImageNet-1K in the order of its class numbers (timm's list)."""
    return tuple(ImageNetInfo().label_names())


def open_image(path: str | Path, mode: Mode = "RGB") -> Image.Image:
    """An image file in the given mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not an image, or is cut off.
    """
    return _decode(path, str(path), mode)


def _decode(source: str | Path | io.BytesIO, name: str, mode: Mode) -> Image.Image:
    try:
        with Image.open(source) as image:
            return image.convert(mode)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def _in_shard(path: Path) -> Iterator[tuple[ImageFile, str | None]]:
    """A shard's pictures with the names of their classes, if it says any."""
    pictures: list[tuple[tarfile.TarInfo, str]] = []
    label_of: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as shard:  # not compressed: a picture must be found by its offset
            for member in shard:
                key, suffix = member.name.rsplit(".", 1)[0], PurePosixPath(member.name).suffix.lower()
                if member.isfile() and suffix in EXTENSIONS:
                    pictures.append((member, key))
                elif member.isfile() and suffix == LABEL:
                    content = shard.extractfile(member)
                    assert content is not None
                    label_of[key] = content.read().decode("utf-8", "replace").strip()
        _check_end(path, shard.offset)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path} is not a whole, uncompressed tar file: {error}") from error
    if not pictures:
        raise ValueError(f"shard {path} holds no image ({', '.join(sorted(EXTENSIONS))})")
    for member, key in pictures:
        folder = PurePosixPath(member.name).parent.name
        name = label_of.get(key, folder or None)
        yield ImageFile(str(path), member.name, UNKNOWN, member.offset_data, member.size), name


def _check_end(path: Path, offset: int) -> None:
    """Raise unless a block of zeros ends the archive there: tarfile takes a shard cut off within a header for its end."""
    with path.open("rb") as shard:
        shard.seek(offset)
        if shard.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of images at {root}")
    return root


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in _existing(root).iterdir() if path.is_dir())


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
