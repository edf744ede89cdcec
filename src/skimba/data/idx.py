"""The IDX file format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist): unsigned bytes, packed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

UNSIGNED_BYTE = 8


def read_idx(path: str | Path) -> npt.NDArray[np.uint8]:
    """The array in an IDX file (``.gz`` or plain).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an IDX file of unsigned bytes, or its length is not what its header says.
    """
    path = Path(path)
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a complete gzip file: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes: it begins with {content[:4].hex() or 'nothing'}"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"{path} ends within its header")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{path} should hold {shape} = {math.prod(shape)} bytes, got {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
