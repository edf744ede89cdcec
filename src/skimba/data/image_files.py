"""Pictures in files: a folder for each class as ImageNet is laid out, a flat folder with a list of labels, or tar shards."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from timm.data import ImageNetInfo

from skimba.data.decoding import EXTENSIONS, MOST_BYTES, decode, open_image
from skimba.data.pictures import UNKNOWN, Mode
from skimba.data.shards import SHARD, Member, read_shard
from skimba.data.walking import Found, walk, walk_all
from skimba.runtime.names import escape


class ImageFile(NamedTuple):
    """Where a picture's bytes are: a file of its own, or ``size`` bytes of a shard from ``offset`` on.

    ``unusable`` says why there is none, where a folder or shard has something in place of a picture: it is counted, named and
    rejected as a broken picture is.
    """

    path: str
    name: str
    label: int = UNKNOWN
    offset: int = 0
    size: int | None = None
    unusable: str = ""


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

    def target(self, index: int) -> int:
        return self.files[index].label

    def stamp(self, index: int) -> int:
        """Its size in bytes; -1 where there is no such file any more."""
        file = self.files[index]
        if file.size is not None:
            return file.size
        return os.stat(file.path).st_size if os.path.exists(file.path) else -1

    def picture(self, index: int) -> Image.Image:
        file = self.files[index]
        if file.unusable:
            raise ValueError(f"{escape(file.name)} {file.unusable}")
        if file.size is None:
            return open_image(file.path, self.mode)
        name = f"{file.path}: {file.name}"
        if file.size > MOST_BYTES:
            raise ValueError(f"{escape(name)} cannot be read as an image: it has more than {MOST_BYTES} bytes")
        with open(file.path, "rb") as shard:
            shard.seek(file.offset)
            return decode(io.BytesIO(shard.read(file.size)), name, self.mode)


@dataclass(frozen=True, eq=False)
class TargetedFiles:
    """Pictures in files whose targets come from elsewhere: annotations, label maps. What depends on the files alone.

    Attributes:
        files: the pictures.
    """

    files: ImageFiles

    @property
    def mode(self) -> Mode:
        return self.files.mode

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files.name(index)

    def stamp(self, index: int) -> int:
        return self.files.stamp(index)


def read_image_folder(root: str | Path, classes: Sequence[str] | None = None, mode: Mode = "RGB") -> ImageFiles:
    """A folder with one subfolder of images per class.

    Args:
        root: the folder.
        classes: names of all classes in order; by default the subfolders in alphabetical order.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, a class without an image, or a folder that is none of ``classes``.
    """
    return ImageFiles(*in_class_folders(Path(root), classes, EXTENSIONS, "image"), mode)


def in_class_folders(
    root: Path, classes: Sequence[str] | None, extensions: Collection[str], what: str
) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Files of some kind in one subfolder per class, and the classes' names; see :func:`read_image_folder`."""
    folders = _folders(root)
    if not folders:
        raise ValueError(f"{root} holds no class folders")
    names = tuple(classes or (folder.name for folder in folders))
    number = {name: label for label, name in enumerate(names)}
    if unknown := [folder.name for folder in folders if folder.name not in number]:
        raise ValueError(f"{root} holds folders of no known class: {', '.join(unknown[:3])}; known: {_some(names)}")
    files = []
    for folder in folders:
        found = [
            ImageFile(str(one.path), str(one.path.relative_to(root)), number[folder.name], unusable=one.unusable)
            for one in _files_of(folder, extensions)
        ]
        if all(one.unusable for one in found):
            raise ValueError(f"class folder {folder} holds no {what} ({', '.join(sorted(extensions))})")
        files += found
    return files, names


def read_labelled_list(root: str | Path, labels: str | Path, classes: Sequence[str], mode: Mode = "RGB") -> ImageFiles:
    """A flat folder of images and a text file that names their classes, as ImageNet's validation images come.

    Args:
        labels: a line for each image: its name (the suffix may be left out), then a class number or name after a space or a
            comma. What follows is ignored, so that Kaggle's ``LOC_val_solution.csv`` and Caffe's ``val.txt`` both work.
        classes: names of all classes in order.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: an unknown class, an image without a line, or no image at all.
    """
    return ImageFiles(in_list(Path(root), Path(labels), classes, EXTENSIONS, "image"), tuple(classes), mode)


def in_list(
    root: Path, labels: Path, classes: Sequence[str], extensions: Collection[str], what: str
) -> list[ImageFile]:
    """Files of some kind in a folder, with the classes that a list gives them; see :func:`read_labelled_list`."""
    number = {name: label for label, name in enumerate(classes)}
    label_of: dict[str, int] = {}
    for place, line in enumerate(labels.read_text("utf-8", "surrogateescape").splitlines(), 1):
        words = line.replace(",", " ").split()
        if len(words) < 2 or (place == 1 and words[1] not in number and not words[1].isdigit()):
            continue  # an empty line, or the header of a CSV file
        label = number.get(words[1], int(words[1]) if words[1].isdigit() else UNKNOWN)
        if not 0 <= label < len(classes):
            raise ValueError(
                f"{labels}, line {place}: {words[1]!r} is no class; known: 0 … {len(classes) - 1}, {_some(classes)}"
            )
        label_of[Path(words[0]).stem] = label
    found = _files_of(_existing(root), extensions)
    if unlabelled := [one.path.name for one in found if one.path.stem not in label_of]:
        raise ValueError(f"{labels} has no line for {len(unlabelled)} {what}s of {root}, for instance {unlabelled[0]}")
    if not found:
        raise ValueError(f"{root} holds no {what} ({', '.join(sorted(extensions))})")
    return [ImageFile(str(one.path), one.path.name, label_of[one.path.stem], unusable=one.unusable) for one in found]


def read_shards(paths: Sequence[Path], classes: Sequence[str] | None = None, mode: Mode = "RGB") -> ImageFiles:
    """Pictures in tar files: ``class/name.jpg``, or webdataset's ``name.jpg`` with ``name.cls`` (a class number or name).

    Args:
        classes: names of all classes in order; those found, sorted, if left out (numbers by their value).

    Raises:
        ValueError: a shard that is not a complete tar file, has no image, or has an unknown class.
    """
    found = [(_in_shard(path, member), member.label) for path in paths for member in read_shard(path)]
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
    """All pictures in files, folders (recursively) and tar shards, in order, without classes.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no image at all.
    """
    files: list[ImageFile] = []
    for (file, unusable), named in walk_all(paths):
        suffix = file.suffix.lower()
        if suffix == SHARD and not unusable:
            files += [_in_shard(file, member) for member in read_shard(file)]
        elif named or unusable or suffix in EXTENSIONS:
            files.append(ImageFile(str(file), str(file), unusable=unusable))
    if not files:
        raise ValueError(f"no image in {', '.join(map(str, paths))} ({', '.join(sorted(EXTENSIONS))}, {SHARD})")
    return ImageFiles(files, (), mode)


def imagenet_classes() -> tuple[str, ...]:
    """The synsets of ImageNet-1K in the order of its class numbers (timm's list)."""
    return tuple(ImageNetInfo().label_names())


def _in_shard(path: Path, member: Member) -> ImageFile:
    return ImageFile(str(path), member.name, UNKNOWN, member.offset, member.size, member.unusable)


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of images at {root}")
    return root


def _folders(root: Path) -> list[Path]:
    children = sorted(_existing(root).iterdir())
    if lost := [child for child in children if child.is_symlink() and not child.exists()]:
        raise ValueError(f"{escape(str(lost[0]))} is a link to nothing, where a class folder may be meant")
    return [child for child in children if child.is_dir()]


def _files_of(folder: Path, extensions: Collection[str]) -> list[Found]:
    return [one for one in walk(folder) if one.unusable or one.path.suffix.lower() in extensions]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
