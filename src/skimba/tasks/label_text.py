"""A label map as text, for what holds rows as plain data: a PNG file in base64, a few kilobytes for a photograph."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def as_text(classes: npt.NDArray[np.integer]) -> str:
    """``(height width)`` of classes 0 … 255 as text."""
    file = io.BytesIO()
    Image.fromarray(classes.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def png_of(text: str) -> bytes:
    """The PNG file."""
    return base64.b64decode(text)


def from_text(text: str) -> npt.NDArray[np.uint8]:
    """The inverse of :func:`as_text`: ``(height width)``."""
    return np.asarray(Image.open(io.BytesIO(png_of(text)), formats=("PNG",)))
