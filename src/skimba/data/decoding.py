"""From untrusted bytes to a picture: the formats and sizes allowed, and what becomes of unusual pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from skimba.data.pictures import Mode
from skimba.runtime.files import check_regular
from skimba.runtime.names import escape

T = TypeVar("T")
# Found by content, not by suffix. Pillow knows others, one of which runs a program (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pnm", ".tif", ".tiff"})
MOST_PIXELS = 89_478_485  # a quarter of a GiB as RGB; Pillow warns above it
MOST_ASPECT = 100  # longer to shorter side: a transform that brings the shorter side to 256 makes 20 MB of it, not 6 GB
MOST_BYTES = 1 << 30  # of a file
WHITE = (255, 255, 255, 255)
SIXTEEN_BITS_AS_I = ("PNG", "PPM")  # formats whose 16-bit grey Pillow may hold in its 32-bit mode
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags
ORIENTATION = 274  # EXIF's tag
TURNED: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LONGEST_REASON = 200


def open_image(path: str | Path, mode: Mode = "RGB") -> Image.Image:
    """An image file in the given mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, or none that :func:`decode` takes.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return decode(file, str(path), mode)


def decode(file: BinaryIO, name: str, mode: Mode) -> Image.Image:
    """The picture in an open file: the first, if there are several; turned as its EXIF orientation says; on white where it is
    transparent; 16-bit grey scaled to 8 bits.

    Args:
        name: for messages.

    Raises:
        ValueError: another format than FORMATS, more than MOST_PIXELS or MOST_BYTES, longer than MOST_ASPECT times its width
            (or wider), 32-bit or floating-point pixels, or broken in any way.
    """

    def shown(image: Image.Image) -> Image.Image:
        found, turn = _in_mode(image, mode), _turn(image)
        return found if turn is None else found.transpose(turn)

    return _decode(file, name, FORMATS, shown)


def open_map(path: str | Path) -> npt.NDArray[np.int64]:
    """A label map, ``(height width)``: the numbers in a PNG file of one channel, whatever colours its palette gives them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, no PNG of one channel, or a broken or too large one.
    """
    check_regular(path)
    with open(path, "rb") as file:
        return _decode(file, str(path), ("PNG",), _numbers)


def _decode(file: BinaryIO, name: str, formats: tuple[str, ...], finish: Callable[[Image.Image], T]) -> T:
    """What ``finish`` makes of the picture. Raises ValueError for whatever goes wrong."""
    try:
        size = file.seek(0, 2)
        file.seek(0)
        if not 0 < size <= MOST_BYTES:
            raise ValueError(f"it has {size} bytes, more than {MOST_BYTES}" if size else "it is empty")
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", module=r"PIL\."
            )  # of odd notes and sizes: nothing that a user could act on
            with Image.open(file, formats=formats) as image:
                _check_shape(*image.size)
                image.load()
                return finish(image)
    except UnidentifiedImageError as error:
        known = f"neither {', '.join(formats[:-1])} nor {formats[-1]}" if len(formats) > 1 else f"no {formats[0]}"
        raise ValueError(f"{escape(name)} cannot be read as an image: {known}, or its head is broken") from error
    except Exception as error:  # for broken files decoders raise SyntaxError, IndexError, struct.error and others
        reason = escape(" ".join(str(error).split()))[:LONGEST_REASON] or type(error).__name__
        raise ValueError(f"{escape(name)} cannot be read as an image: {reason}") from error


def _check_shape(width: int, height: int) -> None:
    """Before any pixel is decoded."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} by {height} pixels are more than {MOST_PIXELS}")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise ValueError(f"{width} by {height} pixels: one side is more than {MOST_ASPECT} times the other")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, by the camera's note. Pillow turns TIFF files itself."""
    try:
        return TURNED.get(image.getexif().get(ORIENTATION))
    except Exception:  # a sound picture may come with broken notes; ImageNet has such
        return None


def _in_mode(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image.convert("RGBA"))
    return image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8. Pillow's own conversion cuts off at 255: such a picture comes out nearly white."""
    if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BITS_AS_I):
        raise ValueError("32 bits for a pixel have no agreed white; convert it to 8 or 16 bits")
    most, inverted = 65535, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        most = 2 ** int(image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0]) - 1  # 12 bits occur
        inverted = image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    grey = np.asarray(image).astype(np.int64)
    shown = np.clip((grey * 255 + most // 2) // most, 0, 255).astype(np.uint8)
    return Image.fromarray(255 - shown if inverted else shown)


def _numbers(image: Image.Image) -> npt.NDArray[np.int64]:
    if len(image.getbands()) > 1:
        raise ValueError(f"a label map has one channel, this has {len(image.getbands())}")
    return np.asarray(image).astype(np.int64)
