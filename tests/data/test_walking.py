import os
import subprocess

import pytest

from skimba.data import find_images, read_image_folder
from skimba.data.walking import walk
from tests.data.pictures_of import photograph


def tree(root):
    for name in ("a/1.png", "a/b/2.png", "a.b/3.png", "c/4.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        photograph().save(root / name)
    (root / "a" / "notes.txt").write_text("no picture")
    return root


def test_files_come_in_the_order_of_their_paths(tmp_path):
    found = walk(tree(tmp_path))
    assert [one.path for one in found] == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert not any(one.unusable for one in found)


def test_linked_folders_are_read_once(tmp_path):
    root, far = tree(tmp_path / "root"), tree(tmp_path / "far")
    (root / "a" / "far").symlink_to(far)
    (root / "0").symlink_to("c")  # before the folder itself
    (far / "up").symlink_to(root)
    (root / "self").symlink_to(".")
    names = {str(one.path.relative_to(root)): one.unusable for one in walk(root) if one.path.suffix != ".txt"}
    again = "is a link to a folder that was read already"
    assert names == {
        "0": again,
        "a/1.png": "",
        "a/b/2.png": "",
        "a/far/a/1.png": "",
        "a/far/a/b/2.png": "",
        "a/far/a.b/3.png": "",
        "a/far/c/4.png": "",
        "a/far/up": again,
        "a.b/3.png": "",
        "c/4.png": "",
        "self": again,
    }


def test_links_that_lead_nowhere_are_named(tmp_path):
    root = tree(tmp_path)
    (root / "a" / "gone.png").symlink_to("nothing")
    (root / "a" / "folder").symlink_to("/nowhere")
    (root / "a" / "loop").symlink_to("loop")
    assert [str(one.path.relative_to(root)) for one in walk(root) if one.unusable == "is a link to nothing"] == [
        "a/folder",
        "a/gone.png",
        "a/loop",
    ]
    found = find_images([root])
    assert len(found) == 7
    with pytest.raises(ValueError, match=r"a/gone\.png is a link to nothing"):
        found.picture([found.name(i) for i in range(7)].index(str(root / "a" / "gone.png")))
    assert len(read_image_folder(root)) == 7


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    root, scan = tree(tmp_path), os.scandir

    def refuse(path):  # as root may read anything, the system's answer is given here
        if path == root / "a" / "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [one for one in walk(root) if one.unusable] == [(root / "a" / "b", "cannot be read: Permission denied")]


def test_a_class_folder_that_leads_nowhere_is_refused(tmp_path):
    root = tree(tmp_path)
    (root / "dog").symlink_to("/nowhere")
    with pytest.raises(ValueError, match="dog is a link to nothing, where a class folder may be meant"):
        read_image_folder(root)
    (root / "dog").unlink()
    (root / "dog").symlink_to("c")
    assert read_image_folder(root).classes == ("a", "a.b", "c", "dog")
    (root / "owl").mkdir()
    (root / "owl" / "x.png").symlink_to("nothing")
    with pytest.raises(ValueError, match="owl holds no image"):
        read_image_folder(root)


def test_deep_folders_are_read(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python's stack
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        assert walk(tmp_path) == []
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # shutil.rmtree goes no deeper than Python's stack
