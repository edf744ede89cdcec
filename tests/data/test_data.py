import gzip
import os

import numpy as np
import pytest
import torch
from PIL import Image

from skimba.data import (
    LabelledImages,
    embedded_test_images,
    load_fashion_mnist,
    open_image,
    read_idx,
    read_image_folder,
)
from skimba.models.evaluation import accuracy
from tests.data.idx_files import write_fashion_mnist, write_idx


def test_the_embedded_images_are_a_thousand_of_ten_classes():
    images = embedded_test_images()
    assert images.pixels.shape == (1000, 1, 28, 28)
    assert images.labels.unique().tolist() == list(range(10))
    assert images.labels[:3].tolist() == [9, 2, 1]  # the data set's test images begin: ankle boot, pullover, trouser
    assert -1 < images.normalised().mean() < 1


@pytest.mark.parametrize("pack", [True, False])
def test_idx_files_come_back_as_written(tmp_path, pack):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / ("a.gz" if pack else "a")
    write_idx(path, array, pack)
    assert np.array_equal(read_idx(path), array)


def damaged(path):
    whole = path.read_bytes()
    yield whole[:-3], "should hold"
    yield whole[:6], "ends within its header"
    yield b"", "begins with nothing"
    yield b"\0\0\x0d\1" + whole[4:], "unsigned bytes"
    yield b"PNG!" + whole, "unsigned bytes"
    yield whole + b"\0", r"\(2, 3\) = 6 bytes, got more"
    yield b"\0\0\x08\x02" + b"\xff" * 8, r"\(4294967295, 4294967295\), more than 1073741824 bytes"
    yield b"\0\0\x08\xff" + bytes(4 * 255), "an array of 255 axes; up to 32 are read"


def test_damaged_idx_files_are_refused(tmp_path):
    path = tmp_path / "a"
    write_idx(path, np.zeros((2, 3), np.uint8), pack=False)
    for content, says in list(damaged(path)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            read_idx(path)
    (tmp_path / "b.gz").write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(ValueError, match="complete gzip"):
        read_idx(tmp_path / "b.gz")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0\0\x08\1\0\0\0\1" + bytes(10**8), 9))
    with pytest.raises(ValueError, match=r"\(1,\) = 1 bytes, got more"):
        read_idx(tmp_path / "bomb.gz")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="is a FIFO, not a regular file"):
        read_idx(tmp_path / "fifo")


def test_fashion_mnist_is_read_from_its_files(tmp_path):
    folder = write_fashion_mnist(tmp_path)
    train, test = load_fashion_mnist(folder, "train"), load_fashion_mnist(folder, "test")
    assert (len(train), len(test)) == (64, 40)
    assert torch.equal(train.pixels, embedded_test_images().pixels[:64])
    with pytest.raises(ValueError, match="known: train, test"):
        load_fashion_mnist(folder, "val")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        load_fashion_mnist(folder, "test")


def test_labels_must_match_images_and_classes():
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="got 2 and 1"):
        LabelledImages(pixels, torch.tensor([0]), ("a",), 0, 1)
    with pytest.raises(ValueError, match=r"0 … 0, got 0 … 1"):
        LabelledImages(pixels, torch.tensor([0, 1]), ("a",), 0, 1)


def photographs(folder):
    rng = np.random.default_rng(0)
    for name, mode, suffix in (("cat", "RGB", "png"), ("cat", "L", "jpg"), ("dog", "RGB", "jpg")):
        (folder / name).mkdir(exist_ok=True)
        shape = (30, 40) if mode == "L" else (30, 40, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{mode}.{suffix}")
    return folder


def test_image_folders_are_read_as_rgb(tmp_path):
    images = read_image_folder(photographs(tmp_path))
    assert images.classes == ("cat", "dog")
    assert [images.target(i) for i in range(3)] == [0, 0, 1]
    assert all(images.picture(i).mode == "RGB" for i in range(3))


def test_unreadable_images_and_empty_folders_are_named(tmp_path):
    folder = photographs(tmp_path)
    broken = folder / "cat" / "RGB.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"RGB.png cannot be read"):
        read_image_folder(folder).picture(1)
    broken.write_text("no image")
    with pytest.raises(ValueError, match=r"RGB.png cannot be read"):
        open_image(broken)
    (folder / "owl").mkdir()
    with pytest.raises(ValueError, match="owl holds no image"):
        read_image_folder(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_image_folder(folder / "nowhere")


def test_accuracy_by_hand():
    logits = torch.tensor([[1.0, 2, 3], [3, 2, 1], [1, 3, 2]])
    labels = torch.tensor([2, 1, 0])
    assert accuracy(logits, labels) == pytest.approx(1 / 3)
    assert accuracy(logits, labels, top=2) == pytest.approx(2 / 3)
    assert accuracy(logits, labels, top=5) == 1
