"""File names of what is written for single pictures."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from skimba.runtime.names import escape

LONGEST = 100  # characters of a picture's own name


def file_name(row: Any, suffix: str) -> str:
    """``000012_cat.png``: the place in the data set, since pictures of several folders may share a name, and the name."""
    stem = escape(PurePosixPath(row.name).stem).replace("\\", "_").replace("/", "_")[:LONGEST]
    return f"{row.index:06d}_{stem}{suffix}"
