import io
import os
import resource
import struct
import time

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageFile

from skimba.data import find_images, open_image
from skimba.data.decoding import MOST_BYTES, MOST_PIXELS, decode
from skimba.data.loading import ClassReader, in_order, load_batches
from skimba.data.transforms import evaluation_transform
from skimba.store import create_model
from tests.data.pictures_of import ALLOWED, bmp_head, encoded, photograph
from tests.runtime.test_files import special_files


def opened(content, mode="RGB"):
    return decode(io.BytesIO(content), "it", mode)


def grey(content):
    return np.asarray(opened(content, "L"))


@pytest.mark.parametrize("kind", ALLOWED)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_is_taken_whatever_the_suffix(tmp_path, kind, mode):
    content = encoded(photograph(), kind)
    (tmp_path / "a.jpg").write_bytes(content)
    found = open_image(tmp_path / "a.jpg", mode)
    with Image.open(io.BytesIO(content)) as image:
        assert found.tobytes() == image.convert(mode).tobytes()


def test_no_program_is_started_by_a_picture(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: started.append(arguments))
    (tmp_path / "a.jpg").write_bytes(encoded(photograph(), "EPS"))
    with pytest.raises(ValueError, match="neither JPEG, PNG, WEBP, BMP, TIFF, GIF nor PPM"):
        open_image(tmp_path / "a.jpg")
    assert not started


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_no_other_format_of_pillow_is_opened():
    Image.init()
    tried = 0
    for kind in sorted(set(Image.SAVE) - set(ALLOWED) - {"MPO"}):  # MPO is JPEG with several pictures
        try:
            content = encoded(photograph(), kind)
        except (OSError, ValueError, KeyError):
            continue  # needs another mode, or a handler that is not there
        tried += 1
        with pytest.raises(ValueError, match="it cannot be read as an image: neither JPEG"):
            opened(content)
    assert tried >= 12


@pytest.mark.parametrize(
    "error", [RuntimeError("avif"), NotImplementedError(), IndexError("x"), MemoryError(), struct.error()]
)
def test_whatever_a_decoder_raises_is_a_reject(tmp_path, monkeypatch, error):
    def broken(self):
        raise error

    content = encoded(photograph(), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    batch = next(iter(load_batches(find_images([tmp_path]), ClassReader(torch.as_tensor), in_order(1, 1), workers=1)))
    assert [one.name for one in batch.rejected] == [str(tmp_path / "a.png")]
    assert batch.rejected[0].reason.endswith(f"cannot be read as an image: {str(error) or type(error).__name__}")


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [
        (1, 80_000_000, "80000000 pixels: one side is more than 100 times the other"),
        (1, 20_000, "1 by 20000 pixels: one side is more than 100 times the other"),
        (60_000, 1, "60000 by 1 pixels"),
        (10_000, 10_000, f"10000 by 10000 pixels are more than {MOST_PIXELS}"),
        (65_000, 65_000, "4225000000 pixels"),
    ],
)
def test_bombs_are_refused_before_their_pixels_are_decoded(tmp_path, width, height, says):
    (tmp_path / "a.bmp").write_bytes(bmp_head(width, height))
    before = time.process_time()
    with pytest.raises(ValueError, match=rf"a\.bmp cannot be read as an image: .*{says}"):
        open_image(tmp_path / "a.bmp")
    assert time.process_time() - before < 1


def test_the_longest_picture_allowed_costs_little(tmp_path):
    photograph(1, 100).save(tmp_path / "a.png")
    transform = evaluation_transform(create_model("vim_tiny_patch16_224", depth=1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert transform(open_image(tmp_path / "a.png")).shape == (3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_huge_and_empty_files_are_refused_unread(tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
    os.truncate(path, MOST_BYTES + 1)
    with pytest.raises(ValueError, match=f"it has {MOST_BYTES + 1} bytes, more than {MOST_BYTES}"):
        open_image(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="it is empty"):
        open_image(path)


def test_what_is_no_regular_file_is_a_reject_and_nothing_waits(tmp_path):
    kinds = special_files(tmp_path)
    (tmp_path / "folder").rmdir()
    for name in kinds.keys() - {"folder"}:
        (tmp_path / name).rename(tmp_path / f"{name}.jpg")
    photograph().save(tmp_path / "a.jpg")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    batch = next(
        iter(
            load_batches(find_images([tmp_path]), ClassReader(lambda image: torch.zeros(1)), in_order(5, 5), workers=1)
        )
    )
    assert batch.indices.tolist() == [0, 3]
    assert sorted(one.reason.split(" is ")[1] for one in batch.rejected) == sorted(
        f"{kinds[kind]}, not a regular file" for kind in ("device", "fifo", "socket")
    )


RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # 0 … 255 in 16 bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled(kind):
    content = encoded(Image.fromarray(RAMP), kind)
    assert np.array_equal(grey(content), np.arange(256).reshape(16, 16))
    assert np.array_equal(np.asarray(opened(content))[..., 1], np.arange(256).reshape(16, 16))


def test_big_endian_and_inverted_sixteen_bit_tiffs():
    swapped = bytearray(encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0}))
    assert np.array_equal(grey(bytes(swapped)), 255 - np.arange(256).reshape(16, 16))
    big = Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes())
    assert np.array_equal(grey(encoded(big, "TIFF")), np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_32_bits_have_no_agreed_white(kind):
    content = encoded(Image.fromarray(RAMP.astype(kind)), "TIFF")
    with pytest.raises(ValueError, match="32 bits for a pixel have no agreed white"):
        opened(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_noted(kind, orientation):
    marked = Image.new("L", (40, 24))
    marked.paste(255, (0, 0, 8, 8))  # top left of the picture as stored
    notes = Image.Exif()
    notes[274] = orientation
    found = grey(encoded(marked, kind, exif=notes)) > 128
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    corner = ("bottom" if rows.min() else "top", "right" if columns.min() else "left")
    # EXIF 2.32, table of orientations: where the stored first row and first column are shown
    shown = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    shown |= {5: "top left", 6: "top right", 7: "bottom right", 8: "bottom left"}
    assert " ".join(corner) == shown[orientation]
    assert found.shape == ((24, 40) if orientation < 5 else (40, 24))


def test_broken_notes_do_not_spoil_a_sound_picture():
    sound = encoded(photograph(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\xff\xff\0\x06")
    assert opened(sound).size == (23, 17)


def test_transparent_parts_are_white_and_opaque_ones_stay():
    image = photograph()
    image.putalpha(Image.fromarray(np.tile(np.repeat([255, 0], [10, 13]).astype(np.uint8), (17, 1))))
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        found = np.asarray(opened(encoded(image, kind, **options)))
        assert np.array_equal(found[:, :10], np.asarray(photograph())[:, :10])
        assert (found[:, 10:] == 255).all()
    palette = photograph().quantize(8)
    content = encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))
    assert opened(content).getpixel((0, 0)) == (255, 255, 255)
    assert opened(content).getpixel((22, 16)) == palette.convert("RGB").getpixel((22, 16))
    content = encoded(palette, "PNG", transparency=bytes(range(0, 256, 36)))  # an alpha for each colour
    assert opened(content).mode == "RGB"


def test_four_inks_become_colours():
    image = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    assert all(
        abs(a - b) < 8 for a, b in zip(opened(encoded(image, "JPEG")).getpixel((5, 5)), (255, 0, 0), strict=True)
    )


def test_the_first_of_several_pictures_is_taken():
    frames = [photograph().quantize(16), Image.new("P", (23, 17))]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert opened(content).tobytes() == opened(encoded(frames[0], "GIF")).tobytes()
    content = encoded(photograph(), "MPO", save_all=True, append_images=[Image.new("RGB", (23, 17))])
    assert np.asarray(opened(content)).std() > 10


def test_messages_hold_no_control_characters(tmp_path):
    path = tmp_path / "a\x1b[31m\n.jpg"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\\u001b\[31m\\n\.jpg cannot be read") as caught:
        open_image(path)
    assert str(caught.value).isprintable()
