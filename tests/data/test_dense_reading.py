from array import array
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from skimba.data import IGNORED, Instance, Instances, open_maps, open_objects
from skimba.data.dense_reading import (
    CroppedMaps,
    MapReader,
    ObjectReader,
    PictureReader,
    jittered,
    mirrored,
    mirrored_maps,
)
from skimba.data.instances import runs_of

pytest.importorskip("skimage")


def painted(things, size=(60, 40)):
    """A data set of one black picture in which every thing is a white rectangle."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    found = []
    for label, x0, y0, x1, y1 in things:
        mask = np.zeros((size[1], size[0]), bool)
        mask[y0:y1, x0:x1] = True
        picture[mask] = 255
        found.append(Instance(label, (float(x0), float(y0), float(x1), float(y1)), runs_of(mask)))
    target = Instances(size[1], size[0], tuple(found))
    return SimpleNamespace(picture=lambda i: Image.fromarray(picture), target=lambda i: target, name=lambda i: "it")


@pytest.mark.parametrize("changes", [mirrored(), jittered(48)])
def test_boxes_and_masks_follow_the_picture(changes):
    pictures, seen = painted([(3, 8, 5, 20, 25), (1, 40, 22, 55, 36)]), set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, target = ObjectReader(changes).read(pictures, 0)
        assert image.dtype == torch.float32
        assert image.max() <= 1
        assert target["masks"].shape == (len(target["labels"]), *image.shape[1:])
        assert target["masks"].dtype == torch.bool
        assert type(target["boxes"]) is type(target["masks"]) is torch.Tensor
        assert set(target["labels"].tolist()) <= {4, 2}
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            x0, y0, x1, y1 = box.round().int().tolist()
            inside = torch.zeros_like(mask)
            inside[y0:y1, x0:x1] = True
            assert (inside ^ mask).sum() <= 2 * (x1 - x0 + y1 - y0) + 4, "but for its border"
            if mask.sum() > 100:
                assert image[:, mask].mean() > 0.8
        seen.add((tuple(image.shape), tuple(target["boxes"].flatten().tolist())))
    assert len(seen) > 1


def test_crowds_are_left_out_and_nothing_is_a_background_picture():
    pictures = painted([(3, 8, 5, 20, 25)])
    crowd = pictures.target(0).things[0]._replace(crowd=True)
    pictures.target = lambda i: Instances(40, 60, (crowd,))
    image, target = ObjectReader(mirrored()).read(pictures, 0)
    assert image.shape == (3, 40, 60)
    assert {name: tuple(value.shape) for name, value in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 40, 60),
    }
    assert target["boxes"].dtype == torch.float32


def test_a_picture_smaller_than_a_patch_is_a_reject_in_training_too():
    with pytest.raises(ValueError, match="it is 60 by 40 pixels, smaller than a patch"):
        ObjectReader(mirrored(), least=41).read(painted([(3, 8, 5, 20, 25)]), 0)


def test_polygons_are_drawn():
    pytest.importorskip("pycocotools")
    pictures = painted([])
    triangle = Instance(0, (10.0, 10.0, 30.0, 30.0), (array("d", [10, 10, 30, 10, 10, 30]),))
    pictures.target = lambda i: Instances(40, 60, (triangle,))
    _, target = ObjectReader(mirrored()).read(pictures, 0)
    assert 180 < target["masks"].sum() < 230


def mapped(numbers):
    picture = Image.fromarray(np.repeat(np.asarray(numbers, np.uint8)[..., None] * 40, 3, 2))
    target = SimpleNamespace(read=lambda: np.asarray(numbers, np.int64))
    return SimpleNamespace(picture=lambda i: picture, target=lambda i: target, name=lambda i: "it")


def halves(height, width):
    numbers = np.zeros((height, width), np.int64)
    numbers[:, width // 2 :] = 4
    return numbers


def test_maps_follow_their_pictures():
    for seed in range(10):
        torch.manual_seed(seed)
        image, classes = MapReader(mirrored_maps()).read(mapped(halves(20, 30)), 0)
        assert classes.dtype == torch.int64
        assert type(classes) is torch.Tensor
        assert torch.equal((image[0] * 255 / 40).round().long(), classes)


def test_parts_of_maps_have_one_size_and_what_lies_outside_is_ignored():
    changes, seen = CroppedMaps(side=64, largest=(64, 256)), []
    for seed in range(30):
        torch.manual_seed(seed)
        image, classes = MapReader(changes).read(mapped(halves(40, 60)), 0)
        assert image.shape == (3, 64, 64)
        assert classes.shape == (64, 64)
        assert set(classes.unique().tolist()) <= {0, 4, IGNORED}
        outside = classes == IGNORED
        rows, columns = (~outside).any(1).sum(), (~outside).any(0).sum()
        assert (~outside).sum() == rows * columns, "a rectangle"
        share = (classes == 4).sum() / (~outside).sum()
        seen.append((outside.any().item(), 0.25 < share < 0.75))
    assert {first for first, _ in seen} == {True, False}
    assert np.mean([balanced for _, balanced in seen]) > 0.8


def test_a_map_of_another_size_is_a_reject():
    pictures = mapped(halves(20, 30))
    pictures.target = mapped(halves(30, 20)).target
    with pytest.raises(ValueError, match="it is 30 by 20 pixels, its map 20 by 30"):
        MapReader(mirrored_maps()).read(pictures, 0)


def test_scenes_are_read_like_any_data_set():
    objects, maps = open_objects(None, "test"), open_maps(None, "test")
    images, targets = ObjectReader(mirrored()).collate([ObjectReader(mirrored()).read(objects, i) for i in range(3)])
    assert [tuple(image.shape) for image in images] == [(3, 128, 128)] * 3
    assert all(len(target["boxes"]) == len(target["masks"]) > 0 for target in targets)
    reader = MapReader(mirrored_maps())
    batch, classes = reader.collate([reader.read(maps, index) for index in range(3)])
    assert batch.shape == (3, 3, 128, 128)
    assert classes.shape == (3, 128, 128)
    assert reader.collate([])[0].shape == (0,)
    reader = PictureReader()
    images, nothing = reader.collate([reader.read(maps, 0)])
    assert (images[0] * 255).round().byte().numpy().tobytes() == maps.scenes[0].pixels.numpy().tobytes()
    assert nothing == [None]
