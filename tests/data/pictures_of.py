"""Pictures in every format, and files that only look like pictures."""

import io

import numpy as np
from PIL import Image

ALLOWED = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def photograph(width=23, height=17, channels=3):
    draw = np.random.default_rng(0)
    smooth = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    return Image.fromarray((smooth + draw.integers(0, 6, (height, width, channels))).astype(np.uint8).squeeze())


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bmp_head(width, height):
    """A BMP file of that shape without its pixels."""
    header = b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    sizes = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return header + sizes + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
