import io
import os
import tarfile

import pytest

from skimba.data import find_images, read_shards
from skimba.data.shards import LONGEST_LABEL
from tests.data.pictures_of import encoded, photograph

PICTURE = encoded(photograph(), "PNG")


def add(shard, name, content=PICTURE, **attributes):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    shard.addfile(member, io.BytesIO(content))


def link(shard, name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    shard.addfile(member)


def read(pictures, index):
    """The picture's size, or why there is none."""
    try:
        return pictures.picture(index).size
    except ValueError as error:
        return str(error)


def test_links_lead_to_the_pictures_that_they_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        link(shard, "cat/early.png", "../dog/a.png", tarfile.SYMTYPE)
        add(shard, "./dog/a.png")
        link(shard, "cat/hard.png", "dog/a.png", tarfile.LNKTYPE)
        link(shard, "cat/twice.png", "early.png", tarfile.SYMTYPE)
        link(shard, "cat/nothing.png", "../dog/b.png", tarfile.SYMTYPE)
        link(shard, "cat/loop.png", "loop.png", tarfile.SYMTYPE)
        link(shard, "cat/device.png", "", tarfile.FIFOTYPE)
    pictures = read_shards([tmp_path / "a.tar"])
    assert [pictures.target(i) for i in range(7)] == [0, 1, 0, 0, 0, 0, 0]
    assert [read(pictures, i) for i in range(4)] == [(23, 17)] * 4
    assert read(pictures, 4) == "cat/nothing.png is a link to ../dog/b.png, which is not in the shard"
    assert read(pictures, 5) == "cat/loop.png is no regular file"
    assert read(pictures, 6) == "cat/device.png is no regular file"


def pax(path, **headers):
    """A shard whose second member has the given pax headers."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as shard:
        add(shard, "cat/a.png")
        add(shard, "cat/b.png", pax_headers=headers)
        add(shard, "cat/c.png")
        add(shard, "cat/d.png")


@pytest.mark.parametrize("size", [-1, -512, -1024, -4096, 10**12, 10**30])
def test_sizes_that_cannot_be_are_refused(tmp_path, size):
    pax(tmp_path / "a.tar", size=str(size))
    with pytest.raises(ValueError, match=r"a\.tar is not a whole, uncompressed tar file: cat/b\.png reaches beyond"):
        read_shards([tmp_path / "a.tar"])


@pytest.mark.parametrize(
    "headers",
    [
        {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "cat/b.png",
            "GNU.sparse.realsize": "4096",
        },
        {"GNU.sparse.map": "0,100,4000,96", "GNU.sparse.size": "4096"},
    ],
)
def test_sparse_members_are_rejected_and_their_neighbours_whole(tmp_path, headers):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as shard:
        add(shard, "cat/a.png")
        stored = b"2\n0\n100\n4000\n96\n".ljust(512, b"\0") if "GNU.sparse.major" in headers else b""
        add(shard, "cat/b.png", stored + bytes(196), pax_headers=headers)
        add(shard, "cat/c.png")
    pictures = read_shards([path])
    assert [read(pictures, i) for i in range(3)] == [
        (23, 17),
        "cat/b.png is stored sparsely; pack it without --sparse",
        (23, 17),
    ]


def test_gnu_sparse_members_are_rejected(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as shard:
        add(shard, "cat/b.png", bytes(196), type=tarfile.GNUTYPE_SPARSE)
        add(shard, "cat/c.png")
    whole = bytearray(path.read_bytes())
    fields = b"".join(b"%011o\0" % number for number in (0, 100, 4000, 96, 0, 0, 0, 0)) + b"\0" + b"%011o\0" % 4096
    whole[386 : 386 + len(fields)] = fields
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    path.write_bytes(whole)
    pictures = read_shards([path])
    assert [read(pictures, i) for i in range(2)] == ["cat/b.png is stored sparsely; pack it without --sparse", (23, 17)]


def test_a_second_archive_behind_the_first_is_refused(tmp_path):
    for name in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / name, "w") as shard:
            add(shard, f"cat/{name}.png")
    both = tmp_path / "both.tar"
    both.write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    with pytest.raises(ValueError, match=r"both\.tar goes on after its end, as two tar files in one do"):
        read_shards([both])
    both.write_bytes((tmp_path / "a.tar").read_bytes() + bytes(5000))
    assert len(read_shards([both])) == 1


def test_a_label_of_absurd_size_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as shard:
        add(shard, "a.png")
        add(shard, "a.cls", b"0" * (LONGEST_LABEL + 1))
    with pytest.raises(ValueError, match=r"a\.cls should hold the name of a class, but has 4097 bytes"):
        read_shards([path])
    with tarfile.open(path, "w") as shard:
        add(shard, "a.png")
        add(shard, "a.cls", b"0")
    whole = bytearray(path.read_bytes())
    start = whole.index(b"a.cls")
    whole[start + 124 : start + 136] = b"%011o\0" % (8**11 - 1)
    whole[start + 148 : start + 156] = b" " * 8
    whole[start + 148 : start + 156] = b"%06o\0 " % sum(whole[start : start + 512])
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"not a whole, uncompressed tar file: a\.cls reaches beyond the end"):
        read_shards([path])


def test_names_that_are_no_text_survive(tmp_path):
    names = [os.fsdecode(b"cat/\xff\xfe.png"), "cat/a\r\n.png", "cat/\\n.png"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as shard:
            for name in names:
                add(shard, name)
        pictures = find_images([tmp_path / "a.tar"])
        assert [pictures.name(i) for i in range(3)] == names
        assert [read(pictures, i) for i in range(3)] == [(23, 17)] * 3


def test_a_fifo_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(ValueError, match="is a FIFO, not a regular file"):
        find_images([tmp_path])
