"""Damaged pictures, tar shards and IDX files: a result or a ValueError of one line, soon.

The long run: ``pytest -m slow tests/hostile/test_pictures.py``.
"""

import gzip
import io
import random
import struct
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from skimba.data import decoding, find_images, read_idx, read_shards
from tests.data.pictures_of import encoded, photograph

MOST_SECONDS = 5  # for one file
PIXELS = 1_000_000  # so that a head that claims a large picture costs little
SHORT, LONG = 2_000, 150_000  # tries of each kind
INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)

pytestmark = pytest.mark.filterwarnings("ignore")  # as decoders run outside of tests


def seeds():
    """Small files that use many parts of the decoders."""
    notes = Image.Exif()
    notes[274] = 6
    photo, alpha = photograph(), photograph()
    alpha.putalpha(128)
    deep = Image.fromarray(np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16))
    for options in ({}, {"progressive": True}, {"exif": notes, "subsampling": 2}, {"restart_marker_blocks": 1}):
        yield encoded(photo, "JPEG", quality=50, **options)
    yield encoded(photo.convert("CMYK"), "JPEG")
    yield encoded(photo, "MPO", save_all=True, append_images=[photo])
    for image in (photo, alpha, photo.quantize(8), deep, photo.convert("1")):
        yield encoded(image, "PNG", exif=notes)
    yield encoded(photo, "PNG", save_all=True, append_images=[photo.convert("L")])
    for options in ({}, {"lossless": True}, {"save_all": True, "append_images": [alpha]}):
        yield encoded(alpha, "WEBP", **options)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield encoded(photo, "TIFF", compression=compression)
    yield encoded(deep, "TIFF")
    yield encoded(photo.convert("1"), "TIFF", compression="group4")
    yield encoded(photo.quantize(16), "GIF", save_all=True, append_images=[photo.quantize(4)], transparency=3)
    for image in (photo, photo.quantize(16), photo.convert("1")):
        yield encoded(image, "BMP")
    for image in (photo, deep, photo.convert("1")):
        yield encoded(image, "PPM")


def mutated(content, draw):
    """One to eight bytes changed, removed, doubled or exchanged with others, mostly near the head."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        place = draw.randrange(min(len(content), draw.choice((40, 200, 10**9))))
        kind = draw.random()
        if kind < 0.4:
            content[place] = draw.randrange(256)
        elif kind < 0.7:
            content[place] = draw.choice(INTERESTING)
        elif kind < 0.8:
            content[place] ^= 1 << draw.randrange(8)
        elif kind < 0.86:
            content[place : place + 4] = struct.pack(
                draw.choice("<>") + "I", draw.choice((0, 1, 2**16, 2**31, 2**32 - 1))
            )
        elif kind < 0.93:
            del content[place : place + draw.choice((1, 2, 4, 64))]
        else:
            content[place:place] = content[draw.randrange(len(content)) :][: draw.choice((1, 4, 64))]
        content = content or bytearray(1)
    return bytes(content)


def one_line(error):
    said = str(error)
    assert said.isprintable(), said
    assert len(said) < 1000
    return said


def try_picture(content):
    """Whether it was decoded."""
    begun = time.monotonic()
    try:
        found = decoding.decode(io.BytesIO(content), "it", "RGB")
    except ValueError as error:
        reason = one_line(error).removeprefix("it cannot be read as an image: ")
        if reason == str(error):
            raise
        return False
    finally:
        assert time.monotonic() - begun < MOST_SECONDS
    assert found.mode == "RGB"
    assert 0 < found.width * found.height <= PIXELS
    return True


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(decoding, "MOST_PIXELS", PIXELS)


@pytest.mark.usefixtures("small")
def test_the_seeds_are_sound():
    assert sum(try_picture(content) for content in seeds()) == len(list(seeds())) >= 25


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small")
def test_pictures_cut_at_any_byte(every):
    decoded = [try_picture(content[:length]) for content in seeds() for length in range(0, len(content), every)]
    assert len(decoded) * every > 19_000
    assert sum(decoded) < 0.2 * len(decoded)  # what lies behind the first picture may be missing


@pytest.mark.parametrize("tries", [SHORT, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
@pytest.mark.usefixtures("small")
def test_mutated_pictures(tries):
    draw, sound = random.Random(0), list(seeds())
    decoded = sum(try_picture(mutated(draw.choice(sound), draw)) for _ in range(tries))
    assert 0.1 * tries < decoded < 0.9 * tries


def shards():
    """Small shards: class folders, webdataset, long names, pax headers, links."""
    picture = encoded(photograph(), "PNG")
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as shard:
            for name, content in (
                ("cat/a.png", picture),
                ("b.png", picture),
                ("b.cls", b"cat"),
                ("n" * 90 + "/c.png", b""),
            ):
                member = tarfile.TarInfo(name if form == tarfile.USTAR_FORMAT else name.replace("n", "ñ" * 2))
                member.size = len(content)
                if form == tarfile.PAX_FORMAT:
                    member.pax_headers = {"mtime": "1.5", "comment": "x" * 40}
                shard.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("cat/d.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a.png"
            shard.addfile(link)
        yield file.getvalue()


def with_checksums(content):
    """Every 512-byte block that was a head gets the right sum again, so that its other fields are read."""
    content = bytearray(content)
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return bytes(content)


def try_shard(path):
    """Whether it was read."""
    begun = time.monotonic()
    try:
        found = read_shards([path])
        every = find_images([path])
        assert len(every) == len(found) > 0
    except ValueError as error:
        one_line(error)
        return False
    finally:
        assert time.monotonic() - begun < MOST_SECONDS
    for index in range(len(found)):
        try:
            found.picture(index)
        except ValueError as error:
            one_line(error)
    return True


@pytest.mark.parametrize("every", [97, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("small")
def test_shards_cut_at_any_byte(tmp_path, every):
    path, read = tmp_path / "a.tar", []
    for content in shards():
        for length in range(0, len(content), every):
            path.write_bytes(content[:length])
            read.append(try_shard(path))
    assert len(read) * every > 20_000
    assert any(read)  # where only the padding is cut
    assert not all(read)


@pytest.mark.parametrize(
    "tries", [SHORT // 4, pytest.param(LONG // 4, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
@pytest.mark.usefixtures("small")
def test_mutated_shards(tmp_path, tries):
    draw, sound, path, read = random.Random(1), list(shards()), tmp_path / "a.tar", 0
    for _ in range(tries):
        content = bytearray(draw.choice(sound))
        for _ in range(draw.choice((1, 2, 4))):
            start = draw.randrange(0, len(content) // 2, 512)
            place = start + draw.choice((draw.randrange(512), 124 + draw.randrange(12), 156, 257 + draw.randrange(8)))
            content[place] = draw.choice((*INTERESTING, *b"0123456789gxLKSV12=\n -", draw.randrange(256)))
        path.write_bytes(with_checksums(content) if draw.random() < 0.8 else content)
        read += try_shard(path)
    assert 0.05 * tries < read < 0.95 * tries


@pytest.mark.parametrize("tries", [SHORT // 2, pytest.param(LONG // 2, marks=pytest.mark.slow)])
def test_damaged_idx_files(tmp_path, tries):
    draw, read = random.Random(2), 0
    plain = bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 5, 6) + bytes(range(120))
    for number in range(tries):
        packed = number % 2 == 0
        content = gzip.compress(plain, mtime=0) if packed else plain
        content = mutated(content, draw) if draw.random() < 0.7 else content[: draw.randrange(len(content))]
        path = tmp_path / ("a.gz" if packed else "a")
        path.write_bytes(content)
        try:
            assert read_idx(path).dtype == np.uint8
            read += 1
        except ValueError as error:
            one_line(error)
    assert 0.01 * tries < read < 0.9 * tries
