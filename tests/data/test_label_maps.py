import numpy as np
import pytest
from PIL import Image

from skimba.data import ADE20K_CLASSES, IGNORED, open_maps, read_label_maps
from tests.data.pictures_of import photograph


def save_map(path, numbers, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(numbers))
    if palette:
        image = image.convert("P")
        image.putpalette(bytes(range(255, -1, -1)) * 3)
        image.putdata(np.asarray(numbers).ravel().tolist())
    image.save(path)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "deep/b"):
            path = tmp_path / "images" / split / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph().save(path)
            numbers = np.full((17, 23), 2, np.uint8)
            numbers[0, :3] = (0, 1, IGNORED)
            save_map(tmp_path / "annotations" / split / f"{name}.png", numbers)
    (tmp_path / "classes.txt").write_text("sky\ngrass\ncat\n")
    return tmp_path


def test_pictures_come_with_their_maps(folder):
    found = open_maps(folder, "train")
    assert found.classes == ("sky", "grass", "cat")
    assert [found.name(i) for i in range(2)] == ["a.jpg", "deep/b.jpg"]
    assert found.target(0).read()[0].tolist() == [0, 1, IGNORED, *[2] * 20]
    assert found.target(0).read().dtype == np.int64
    assert found.picture(1).size == (23, 17)
    assert found.faults == ()


def test_ade20k_counts_from_one_and_ignores_zero(tmp_path):
    photograph(5, 2).save(tmp_path / "a.jpg")
    numbers = np.array([[0, 1, 2, 150, 150]] * 2, np.uint8)
    for split in ("training", "validation"):
        (tmp_path / "images" / split).mkdir(parents=True)
        photograph(5, 2).save(tmp_path / "images" / split / "a.jpg")
        save_map(tmp_path / "annotations" / split / "a.png", numbers)
    found = open_maps(tmp_path, "test")
    assert len(found.classes) == 150
    assert (found.classes[0], found.classes[12], found.classes[149]) == ("wall", "person", "flag")
    assert found.target(0).read()[0].tolist() == [IGNORED, 0, 1, 149, 149]
    save_map(tmp_path / "annotations" / "validation" / "a.png", numbers + 1)
    with pytest.raises(ValueError, match=r"a\.png has the label 151; known: 1 … 150 and 0 for pixels of no class"):
        open_maps(tmp_path, "test").target(0).read()


def test_ade20ks_classes_are_150_names():
    assert len(set(ADE20K_CLASSES)) == 150
    assert all(name == name.strip() and name for name in ADE20K_CLASSES)


def test_numbers_count_whatever_a_palette_shows(folder):
    path = folder / "annotations" / "train" / "a.png"
    numbers = np.arange(17 * 23, dtype=np.uint8).reshape(17, 23) % 3
    save_map(path, numbers, palette=True)
    with Image.open(path) as image:
        assert image.mode == "P"
    assert np.array_equal(open_maps(folder, "train").target(0).read(), numbers)
    save_map(path, numbers.astype(np.uint16))
    assert np.array_equal(open_maps(folder, "train").target(0).read(), numbers)


def test_broken_maps_are_rejects(folder):
    path = folder / "annotations" / "train" / "a.png"
    target = open_maps(folder, "train").target(0)
    save_map(path, np.full((17, 23), 3, np.uint8))
    with pytest.raises(ValueError, match=r"a\.png has the label 3; known: 0 … 2 and 255 for pixels of no class"):
        target.read()
    photograph().save(path)
    with pytest.raises(ValueError, match=r"a label map has one channel, this has 3"):
        target.read()
    photograph().convert("L").save(path, "JPEG")
    with pytest.raises(ValueError, match=r"cannot be read as an image: no PNG"):
        target.read()
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="cannot be read"):
        target.read()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        target.read()


def test_what_has_no_partner_is_named(folder):
    (folder / "annotations" / "train" / "a.png").rename(folder / "annotations" / "train" / "c.png")
    found = open_maps(folder, "train")
    assert [found.name(i) for i in range(len(found))] == ["deep/b.jpg"]
    assert found.faults == (("a", "no map"), ("c", "a map of no picture"))
    (folder / "annotations" / "train" / "deep" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"no picture in .* has a map"):
        open_maps(folder, "train")


def test_what_is_no_such_data_set_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="unknown split 'valid'; known: train, test"):
        open_maps(folder, "valid")
    with pytest.raises(FileNotFoundError, match="no folder at"):
        open_maps(folder / "nowhere", "test")
    with pytest.raises(
        FileNotFoundError, match=r"neither ADE20K \(images/validation\) nor label maps with a classes\.txt"
    ):
        open_maps(folder / "images", "test")
    with pytest.raises(ValueError, match="1 … 255 classes apart, got 0"):
        read_label_maps(folder / "images", folder / "annotations", [])
