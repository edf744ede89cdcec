import numpy as np
import pytest
import torch

from skimba.data import (
    FashionScenes,
    SceneMaps,
    SceneObjects,
    as_coco,
    changes,
    embedded_test_images,
    fingerprint,
    open_maps,
    open_objects,
)
from skimba.data.fashion_mnist import CLASSES
from skimba.data.scene_targets import dense_scenes
from tests.data.idx_files import write_fashion_mnist

pytest.importorskip("skimage")


def test_the_held_back_scenes_are_a_thousand_and_always_the_same():
    objects, maps = open_objects(None, "test"), open_maps(None, "test")
    assert len(objects) == len(maps) == 1000
    again = open_objects(None, "test")
    for index in (0, 7, 999):
        assert objects.target(index).read() == again.target(index).read()
        assert objects.stamp(index) == again.stamp(index) == maps.stamp(index)
        assert objects.picture(index).tobytes() == again.picture(index).tobytes() == maps.picture(index).tobytes()
    # of the first scenes: a change of the generator would make stored figures incomparable
    assert [len(objects.target(index).read().things) for index in range(8)] == [2, 2, 3, 3, 2, 2, 3, 4]


def test_boxes_masks_and_maps_say_the_same():
    objects, maps = open_objects(None, "test"), open_maps(None, "test")
    assert objects.classes == CLASSES
    assert maps.classes == ("background", *CLASSES)
    counts = set()
    for index in range(60):
        target, numbers = objects.target(index).read(), maps.target(index).read()
        masks = target.masks()
        counts.add(len(masks))
        assert masks.shape[1:] == numbers.shape == (128, 128)
        expected = np.zeros((128, 128), int)
        for thing, mask in zip(target.things, masks, strict=True):
            expected[mask] = thing.label + 1
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert thing.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert thing.area == mask.sum()
        assert np.array_equal(numbers, expected)
        assert 0 < (numbers == 0).mean() < 1
    assert counts == {1, 2, 3, 4}


def test_a_fingerprint_tells_scenes_apart_without_making_them(monkeypatch):
    items = embedded_test_images()[:30]
    before = fingerprint(SceneObjects(dense_scenes(items, "test")))
    monkeypatch.setattr(FashionScenes, "__getitem__", lambda *arguments: pytest.fail("a scene was made"))
    assert changes(before, fingerprint(SceneObjects(dense_scenes(items, "test")))) == []
    others = [
        SceneObjects(dense_scenes(items, "test", seed=1)),
        SceneObjects(dense_scenes(items, "train")),
        SceneObjects(FashionScenes(items, "test", 128, 4)),
        SceneObjects(dense_scenes(items[torch.arange(29, -1, -1)], "test")),
        SceneMaps(dense_scenes(items, "test")),
    ]
    for other in others:
        assert changes(before, fingerprint(other))


def test_training_scenes_are_made_of_the_training_items(tmp_path):
    folder = write_fashion_mnist(tmp_path)
    train, test = open_objects(folder, "train"), open_objects(folder, "test")
    assert (len(train), len(test)) == (64, 40)
    assert train.target(0).read().things[0].label == int(train.scenes.items.labels[0])
    assert not torch.equal(train.scenes[0].pixels, test.scenes[0].pixels)
    with pytest.raises(ValueError, match="the items in the package are test items"):
        open_objects(None, "train")


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools with NumPy 2
def test_scenes_are_measured_by_cocos_tools():
    coco = pytest.importorskip("pycocotools.coco").COCO()
    objects = open_objects(None, "test")
    small = type(objects)(dense_scenes(objects.scenes.items[:5], "test"))
    coco.dataset = as_coco(small)
    coco.createIndex()
    for index in range(5):
        target = small.target(index).read()
        theirs = [coco.annToMask(one) for one in coco.loadAnns(coco.getAnnIds(index))]
        assert all(np.array_equal(a, b) for a, b in zip(target.masks(), theirs, strict=True))
        assert [one["category_id"] for one in coco.loadAnns(coco.getAnnIds(index))] == [t.label for t in target.things]
