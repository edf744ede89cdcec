"""All files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """A file, or something that cannot be entered, with the reason."""

    path: Path
    unusable: str = ""


def walk(folder: Path) -> list[Found]:
    """Every file in a folder and the folders in it, by name. Links to folders are followed, each folder read once.

    What cannot be read is in the list too, with the reason: a link to nothing, a folder that may not be read, a link to a folder
    that was read already (links may be circular).
    """
    found: list[Found] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)  # a folder is named by its own path, if that is in the tree
        try:
            about = os.stat(here)
            if (about.st_dev, about.st_ino) in seen:
                found.append(Found(here, "is a link to a folder that was read already"))
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(here) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = here / entry.name
                    if os.path.isdir(path):  # entry.is_dir() raises for a link to itself
                        (links if entry.is_symlink() else folders).append(path)
                    elif entry.is_symlink() and not os.path.exists(path):
                        found.append(Found(path, "is a link to nothing"))
                    else:
                        found.append(Found(path))
        except OSError as error:
            found.append(Found(here, f"cannot be read: {error.strerror}"))
    return sorted(found)


def walk_all(paths: Iterable[str | Path]) -> Iterator[tuple[Found, bool]]:
    """Files, and every file in folders, in order; and whether it was named itself.

    Raises:
        FileNotFoundError: no such path.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from ((found, False) for found in walk(path))
        elif path.exists():
            yield Found(path), True
        else:
            raise FileNotFoundError(f"nothing at {path}")
