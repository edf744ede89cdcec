"""The IDX file format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist): unsigned bytes, compressed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from skimba.runtime.files import check_regular

UNSIGNED_BYTE = 8
PIECE = 1 << 20
MOST_AXES = 32  # NumPy's bound before its version 2
MOST_BYTES = 1 << 30  # unpacked: a packed file of a megabyte may claim, and hold, a thousand times as much


def read_idx(path: str | Path) -> npt.NDArray[np.uint8]:
    """The array in an IDX file (``.gz`` or plain).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an IDX file of unsigned bytes, more than MOST_BYTES, or its length is not what its header says.
    """
    path = Path(path)
    check_regular(path)
    with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        try:
            return _read(file, path)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a complete gzip file: {error}") from error


def _read(file: BinaryIO, path: Path) -> npt.NDArray[np.uint8]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: it begins with {magic.hex() or 'nothing'}")
    if magic[3] > MOST_AXES:
        raise ValueError(f"{path} should hold an array of {magic[3]} axes; up to {MOST_AXES} are read")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"{path} ends within its header")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    count = math.prod(shape)
    if count > MOST_BYTES:
        raise ValueError(f"{path} should hold {shape}, more than {MOST_BYTES} bytes")
    content = _up_to(count, file)
    more = file.read(1)
    if len(content) < count or more:
        raise ValueError(f"{path} should hold {shape} = {count} bytes, got {'more' if more else len(content)}")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def _up_to(count: int, file: BinaryIO) -> bytes:
    """That many bytes, or what there is: asked for at once, a gigabyte that a broken header claims would be set aside."""
    pieces = []
    while count and (piece := file.read(min(count, PIECE))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
