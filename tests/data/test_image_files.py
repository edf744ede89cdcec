import io
import tarfile

import pytest

from skimba.data import (
    UNKNOWN,
    LabelledImages,
    embedded_test_images,
    find_images,
    imagenet_classes,
    open_pictures,
    read_image_folder,
    read_labelled_list,
    read_shards,
)
from tests.data.idx_files import write_fashion_mnist
from tests.data.scene_tree import CLASSES, pixels, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), train=20, test=10)


def add(shard, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def pack(tree, path, webdataset):
    """The training pictures as a shard, by class folders or as webdataset writes them."""
    with tarfile.open(path, "w") as shard:
        for number, file in enumerate(sorted((tree / "train").rglob("*.jpg"))):
            if webdataset:
                add(shard, f"{number:06d}.jpg", file.read_bytes())
                add(shard, f"{number:06d}.cls", str(CLASSES.index(file.parent.name)).encode())
            else:
                add(shard, f"{file.parent.name}/{file.name}", file.read_bytes())
    return path


@pytest.mark.parametrize("webdataset", [True, False])
def test_a_shard_holds_what_its_folder_does(tree, tmp_path, webdataset):
    folder = read_image_folder(tree / "train")
    shard = read_shards([pack(tree, tmp_path / "train-000.tar", webdataset)])
    assert len(shard) == len(folder) == 20
    assert [shard.target(i) for i in range(20)] == [folder.target(i) for i in range(20)]
    assert [shard.picture(i).tobytes() for i in range(20)] == [folder.picture(i).tobytes() for i in range(20)]
    assert len(shard.classes) == 10


def test_damaged_shards_are_refused(tree, tmp_path):
    path = pack(tree, tmp_path / "train-000.tar", True)
    whole = path.read_bytes()
    for length in (4000, 1024, 100, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"train-000\.tar is not a whole, uncompressed tar file"):
            read_shards([path])
    with tarfile.open(path, "w") as shard:
        add(shard, "readme.txt", b"hello")
    with pytest.raises(ValueError, match="holds no image"):
        read_shards([path])
    with tarfile.open(path, "w") as shard:
        add(shard, "a.jpg", b"")
        add(shard, "a.cls", b"12")
    with pytest.raises(ValueError, match="unknown classes: 12; known: a, b"):
        read_shards([path], ["a", "b"])


def test_a_picture_in_a_shard_may_be_broken(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        add(shard, "../cat/a.jpg", b"no image")
    with pytest.raises(ValueError, match=r"a\.tar: \.\./cat/a\.jpg cannot be read as an image"):
        read_shards([tmp_path / "a.tar"]).picture(0)


def test_imagenets_validation_pictures_come_flat_with_a_list(tree, tmp_path):
    names = []
    for number, path in enumerate(sorted((tree / "val").rglob("*.jpg"))[:3], 1):
        names.append(f"ILSVRC2012_val_{number:08d}")
        (tmp_path / f"{names[-1]}.JPEG").write_bytes(path.read_bytes())
    synsets = imagenet_classes()
    caffe, kaggle = tmp_path / "val.txt", tmp_path / "LOC_val_solution.csv"
    caffe.write_text("".join(f"{name}.JPEG {label}\n" for name, label in zip(names, (3, 999, 0), strict=True)))
    kaggle.write_text(
        "ImageId,PredictionString\n"
        + "".join(f"{n},{synsets[i]} 1 2 3 4\n" for n, i in zip(names, (3, 999, 0), strict=True))
    )
    for listed in (caffe, kaggle):
        found = read_labelled_list(tmp_path, listed, synsets)
        assert [found.target(i) for i in range(3)] == [3, 999, 0]
        assert [found.name(i) for i in range(3)] == [f"{name}.JPEG" for name in names]
    found = open_pictures(tmp_path, "test", num_classes=1000, labels=caffe)
    assert len(found) == 3
    caffe.write_text(f"{names[0]} 3\n{names[1]} 1000\n")
    with pytest.raises(ValueError, match=r"line 2: '1000' is no class; known: 0 … 999"):
        read_labelled_list(tmp_path, caffe, synsets)
    caffe.write_text(f"{names[0]} 3\n")
    with pytest.raises(ValueError, match=f"no line for 2 images .* {names[1]}"):
        read_labelled_list(tmp_path, caffe, synsets)


def test_a_subset_of_imagenet_keeps_its_class_numbers(tree, tmp_path):
    synsets = imagenet_classes()
    assert (len(synsets), synsets[0]) == (1000, "n01440764")
    picture = next((tree / "val").rglob("*.jpg")).read_bytes()
    for name in (synsets[7], synsets[500]):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "a.JPEG").write_bytes(picture)
    found = open_pictures(tmp_path, "test", num_classes=1000)
    assert [found.target(i) for i in range(2)] == [7, 500]
    assert found.classes == synsets
    assert open_pictures(tmp_path, "test", num_classes=2).classes == (synsets[7], synsets[500])
    with pytest.raises(ValueError, match="folders of no known class: n00000000, n00000001, n00000002; known: cat"):
        read_image_folder(tree / "val", ["cat"])


def test_a_split_is_found_by_its_name(tree, tmp_path):
    train, test = open_pictures(tree, "train"), open_pictures(tree, "test")
    assert (len(train), len(test)) == (20, 10)
    assert train.classes == test.classes == CLASSES
    pack(tree, tmp_path / "train-000.tar", False)
    assert len(open_pictures(tmp_path, "train")) == 20
    with pytest.raises(FileNotFoundError, match="no shard of the split test"):
        open_pictures(tmp_path, "test")
    write_fashion_mnist(tmp_path)
    assert isinstance(open_pictures(tmp_path, "test"), LabelledImages)
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_pictures(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither class folders nor"):
        open_pictures(tmp_path / "empty", "train")


def test_pictures_are_found_in_files_folders_and_shards(tree, tmp_path):
    shard = pack(tree, tmp_path / "some.tar", True)
    one = next((tree / "val").rglob("*.jpg"))
    found = find_images([one, tree / "train", shard])
    assert len(found) == 41
    assert found.name(0) == str(one)
    assert {found.target(i) for i in range(41)} == {UNKNOWN}
    assert found.picture(0).tobytes() == pixels(one)
    assert find_images([one], "L").picture(0).mode == "L"
    with pytest.raises(FileNotFoundError, match="nothing at"):
        find_images([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in"):
        find_images([tmp_path / "empty"])


def test_pictures_in_memory_are_pictures_too():
    images = embedded_test_images()
    assert images.mode == images.picture(3).mode == "L"
    assert images.picture(3).tobytes() == images.pixels[3].numpy().tobytes()
    assert images.target(3) == images.labels[3]
