import json

import pytest

from skimba.data import (
    Selected,
    changes,
    embedded_test_images,
    find_images,
    fingerprint,
    fingerprints,
    read_image_folder,
)
from tests.data.scene_tree import write_tree


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", train=20, test=10) / "train"


def edit(tree, what):
    first, *_, last = sorted(tree.rglob("*.jpg"))
    if what == "removed":
        last.unlink()
    elif what == "added":
        (tree / "n00000009" / "z.jpg").write_bytes(first.read_bytes())
    elif what == "renamed":
        first.rename(first.with_name("00000.jpg"))
    elif what == "relabelled":
        first.rename(tree / "n00000005" / first.name)
    elif what == "swapped":
        first.rename(tree / "aside")
        last.rename(first)
        (tree / "aside").rename(last)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("nothing", []),
        ("removed", ["20 pictures then, 19 now", "other names among pictures 0 … 18"]),
        ("added", ["20 pictures then, 21 now", "other names among pictures 0 … 20"]),
        ("renamed", ["other names among pictures 0 … 19"]),
        ("relabelled", ["other targets among pictures 0 … 19"]),
        ("swapped", ["other files (sizes or pixels) among pictures 0 … 19"]),
    ],
)
def test_what_changed_is_said(tree, what, says):
    before = json.loads(json.dumps(fingerprint(read_image_folder(tree))))
    edit(tree, what)
    found = changes(before, fingerprint(read_image_folder(tree)))
    assert set(says) <= set(found)
    assert bool(says) == bool(found)


def test_a_change_is_placed(tree, monkeypatch):
    monkeypatch.setattr(fingerprints, "BLOCK", 8)
    pictures = read_image_folder(tree)
    before = fingerprint(pictures)
    assert {what: len(before[what]) for what in ("names", "targets", "sizes")} == {"names": 3, "targets": 3, "sizes": 3}
    edit(tree, "swapped")
    assert changes(before, fingerprint(pictures)) == ["other files (sizes or pixels) among pictures 0 … 7"]
    first, *_ = sorted(tree.rglob("*.jpg"))
    first.unlink()
    assert changes(before, fingerprint(pictures)) == ["other files (sizes or pixels) among pictures 0 … 7"]


def test_pictures_in_memory_are_told_apart_by_their_pixels():
    images = embedded_test_images()[:50]
    before = fingerprint(images)
    assert changes(before, fingerprint(images)) == []
    other = images[:50]
    other.pixels.data = images.pixels.clone()
    other.pixels[30, 0, 3, 3] += 1
    assert changes(before, fingerprint(other)) == ["other files (sizes or pixels) among pictures 0 … 49"]
    assert "other targets among pictures 0 … 9" in changes(before, fingerprint(Selected(images, range(40, 50))))


def test_grey_and_colour_are_other_pictures(tree):
    assert changes(fingerprint(find_images([tree])), fingerprint(find_images([tree], "L"))) == ["mode RGB then, L now"]


def test_a_damaged_record_is_another_data_set(tree):
    now = fingerprint(find_images([tree]))
    assert len(changes({"names": 3}, now)) == 6
