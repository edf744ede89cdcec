"""What is in a tar file: where each picture's bytes are, and of which class it is.

Shards are read in place by the offsets that one pass over their heads finds, not streamed through a shuffle buffer: so an
interrupted training resumes at the exact batch, epochs are shuffled as a whole, and evaluation sees each picture once.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from skimba.data.decoding import EXTENSIONS
from skimba.runtime.files import check_regular
from skimba.runtime.names import escape

SHARD, LABEL = ".tar", ".cls"
LONGEST_LABEL = 4096  # bytes
MOST_LINKS = 8  # from one to another
CHUNK = 1 << 20


class Member(NamedTuple):
    """A picture in a shard: ``size`` bytes from ``offset`` on, or why it cannot be read."""

    name: str
    offset: int
    size: int
    label: str | None  # name or number of its class
    unusable: str


def read_shard(path: Path) -> list[Member]:
    """All pictures of a tar file in their order: ``class/name.jpg``, or webdataset's ``name.jpg`` with ``name.cls``.

    Links are resolved to the member that they name. What cannot be read in place (sparse members, links to nothing, devices
    named like a picture) is in the list, with the reason.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a complete, uncompressed tar file, has data after its end, or holds no picture.
    """
    check_regular(path)
    members, labels = _scan(path)
    places = {posixpath.normpath(member.name): member for member in members}
    found = []
    for member in members:
        key, folder = member.name.rsplit(".", 1)[0], PurePosixPath(member.name).parent.name
        if PurePosixPath(member.name).suffix.lower() in EXTENSIONS and not member.isdir():
            source, unusable = _source(member, places)
            found.append(
                Member(member.name, source.offset_data, source.size, labels.get(key, folder or None), unusable)
            )
    if not found:
        raise ValueError(f"shard {path} holds no image ({', '.join(sorted(EXTENSIONS))})")
    return found


def _scan(path: Path) -> tuple[list[tarfile.TarInfo], dict[str, str]]:
    """All members, and what the label files among them say, by their names without suffix."""
    members: list[tarfile.TarInfo] = []
    labels: dict[str, str] = {}
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(
                fileobj=file, mode="r:"
            ) as shard:  # not compressed: a picture must be found by its offset
                end = 0
                while (member := shard.next()) is not None:
                    if member.size < 0 or not end < shard.offset <= length:
                        raise tarfile.ReadError(f"{escape(member.name)} reaches beyond the end of the file")
                    end = shard.offset
                    members.append(member)
                    if member.isfile() and PurePosixPath(member.name).suffix.lower() == LABEL:
                        labels[member.name.rsplit(".", 1)[0]] = _label(shard, member)
                end = shard.offset
        except Exception as error:  # tarfile meets malformed heads with exceptions of many kinds
            raise ValueError(f"{path} is not a whole, uncompressed tar file: {error}") from error
        _check_end(file, end, path)
    return members, labels


def _label(shard: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = shard.extractfile(member)
    if member.size > LONGEST_LABEL or content is None:
        raise tarfile.ReadError(f"{escape(member.name)} should hold the name of a class, but has {member.size} bytes")
    return content.read().decode("utf-8", "replace").strip()


def _source(member: tarfile.TarInfo, places: dict[str, tarfile.TarInfo]) -> tuple[tarfile.TarInfo, str]:
    """The member that holds the picture, and why it cannot be read, if so."""
    for _ in range(MOST_LINKS):
        if not (member.islnk() or member.issym()):
            break
        beside = posixpath.dirname(member.name) if member.issym() else ""
        target = places.get(posixpath.normpath(posixpath.join(beside, member.linkname)))
        if target is None:
            return member, f"is a link to {escape(member.linkname)}, which is not in the shard"
        member = target
    if member.issparse():
        return member, "is stored sparsely; pack it without --sparse"
    return member, "" if member.isreg() else "is no regular file"


def _check_end(file: BinaryIO, offset: int, path: Path) -> None:
    """Raise unless a block of zeros ends the archive there (tarfile takes a shard cut off within a head for its end) and only
    zeros follow it."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"{path} is not a whole, uncompressed tar file: unexpected end of data")
    while chunk := file.read(CHUNK):
        if chunk.count(0) != len(chunk):
            raise ValueError(f"{path} goes on after its end, as two tar files in one do; make one archive of them")
