"""The visitors' pictures: checked once, kept as the bytes that came, and made into what a model takes."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from PIL import Image
from timm.data import resolve_data_config
from torch import Tensor
from torchvision.transforms.v2 import functional

from skimba.data.decoding import decode
from skimba.data.pictures import Mode
from skimba.dense import DenseModel
from skimba.explorer.catalogue import Opened

LARGEST_UPLOAD = 32 << 20  # bytes
MOST_KEPT = 128 << 20  # bytes of all pictures; the ones not looked at for longest go
EXAMPLE = "example:"


class Pictures:
    """Uploaded pictures by the digest of their bytes, so that two visitors never see each other's.

    Args:
        most_kept: bytes of all that are kept.
    """

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._most_kept = most_kept

    def add(self, content: bytes) -> str:
        """Its name from now on.

        Raises:
            ValueError: too large, or no picture that :func:`skimba.data.decoding.decode` takes.
        """
        if len(content) > LARGEST_UPLOAD:
            raise ValueError(f"a picture has at most {LARGEST_UPLOAD >> 20} MB here, this has {len(content) >> 20}")
        _decoded(content, "RGB")
        name = hashlib.sha256(content).hexdigest()[:32]
        self._files[name] = content
        self._files.move_to_end(name)
        while sum(map(len, self._files.values())) > self._most_kept and len(self._files) > 1:
            self._files.popitem(last=False)
        return name

    def frames(self, name: str, opened: Opened) -> Sequence[Image.Image]:
        """An uploaded picture, or ``example:NUMBER``: as many frames as the model takes. A picture stands still in all of them.

        Raises:
            ValueError: no such picture.
        """
        if name.startswith(EXAMPLE):
            examples, number = opened.offer.gallery.examples(), name.removeprefix(EXAMPLE)
            if not number.isdecimal() or int(number) >= len(examples):
                raise ValueError(f"examples are 0 … {len(examples) - 1}, got {number[:20]!r}")
            return examples[int(number)].frames(opened.frames)
        if name not in self._files:
            raise ValueError("that picture is no longer here: choose it again")
        self._files.move_to_end(name)
        return [_decoded(self._files[name], opened.mode)] * opened.frames


def seen(image: Tensor, opened: Opened) -> bytes:
    """PNG of what the model takes, in the colours that it had before it was normalised: what it sees. The frames of a clip stand
    below one another."""
    if isinstance(opened.dense, DenseModel):
        return as_png(functional.to_pil_image(image[0]))
    config = resolve_data_config(model=opened.dense)
    mean, std = (np.asarray(config[key], np.float32)[:, None, None] for key in ("mean", "std"))
    shown = np.clip(image[0].flatten(1, -2).numpy() * std + mean, 0, 1)
    pixels = np.rint(255 * np.moveaxis(shown, 0, -1)).astype(np.uint8)
    return as_png(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def as_png(image: Image.Image, most: int | None = None) -> bytes:
    """PNG of a picture, reduced to ``most`` pixels a side."""
    if most is not None:
        image = image.copy()
        image.thumbnail((most, most))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _decoded(content: bytes, mode: Mode) -> Image.Image:
    return decode(io.BytesIO(content), "the picture", mode)
