import numpy as np
import pytest
import torch
from PIL import Image

from skimba.data import FashionScenes, LabelledImages, embedded_test_images, scenes
from skimba.data.scenes import MOST_OVERLAP

items = embedded_test_images()


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("pixels", "labels", "boxes", "masks"))


def test_a_scene_follows_from_seed_and_number_alone():
    whole, part = FashionScenes(items, "test", most_items=3), FashionScenes(items, "test", most_items=3)
    assert same(whole[7], part[7])
    assert not torch.equal(whole[7].pixels, FashionScenes(items, "test", most_items=3, seed=1)[7].pixels)
    assert not torch.equal(whole[7].pixels, FashionScenes(items, "train", most_items=3)[7].pixels)


def test_boxes_and_masks_say_where_the_items_are():
    scenes = FashionScenes(items, "train", size=112, most_items=4)
    counts = set()
    for index in range(40):
        scene = scenes[index]
        counts.add(len(scene.labels))
        assert scene.pixels.shape == (3, 112, 112)
        assert scene.pixels.dtype == torch.uint8
        assert scene.masks.shape == (len(scene.labels), 112, 112)
        assert scene.masks.sum(0).max() <= 1, "a pixel shows one item"
        for box, mask in zip(scene.boxes.long(), scene.masks, strict=True):
            x0, y0, x1, y1 = box.tolist()
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert all(edge.any() for edge in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))
    assert counts == {1, 2, 3, 4}


def test_the_item_is_painted_and_the_rest_is_photograph():
    white = LabelledImages(
        torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), torch.tensor([3]), items.classes, 0.3, 0.3
    )
    scene = FashionScenes(white, "test")[0]
    assert scene.labels.tolist() == [3]
    mask = scene.masks[0]
    assert 0.4**2 * 0.9 < mask.float().mean() < 0.7**2
    inside, outside = scene.pixels[:, mask], scene.pixels[:, ~mask]
    assert (inside == inside[:, :1]).all(), "one tint"
    assert inside.min() >= 127
    assert outside.float().std() > 1


def test_labelled_scenes_are_a_classification_set():
    scenes = FashionScenes(items[:5], "test")
    labelled = scenes.labelled()
    assert torch.equal(labelled.labels, items.labels[:5])
    assert torch.equal(labelled.pixels[4], scenes[4].pixels)
    assert labelled.normalised().shape == (5, 3, 56, 56)


def test_most_of_a_scene_is_background_on_average():
    scenes = FashionScenes(items, "test")
    assert np.mean([scenes[index].masks.any(0).float().mean().item() for index in range(100)]) < 0.3


def test_items_overlap_little():
    scenes = FashionScenes(items, "test", size=64, most_items=6)
    boxes = []
    draw = np.random.default_rng(0)
    for item in range(20):
        placed = scenes._place(item, boxes, draw)
        if placed is not None:
            boxes.append(placed[0])
    assert 3 <= len(boxes) < 20
    for one, (x0, y0, x1, y1) in enumerate(boxes):
        for u0, v0, u1, v1 in boxes[:one]:
            shared = max(min(x1, u1) - max(x0, u0), 0) * max(min(y1, v1) - max(y0, v0), 0)
            assert shared <= MOST_OVERLAP * min((x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "valid"}, "unknown split 'valid'; known: train, test"),
        ({"split": "test", "size": 4}, "got size 4, 1 items"),
        ({"split": "test", "most_items": 0}, "got size 56, 0 items"),
        ({"split": "test", "side": (0.5, 0.4)}, r"sides of items in 0 … 1, the least first, got \(0.5, 0.4\)"),
    ],
)
def test_bad_settings_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        FashionScenes(items, **arguments)


def test_scenes_end():
    with pytest.raises(IndexError, match="scene 2 of 2"):
        FashionScenes(items[:2], "test")[2]


def test_ground_names_the_photograph_that_is_shown(monkeypatch):
    flat = tuple(Image.new("RGB", (400, 400), (10 * number,) * 3) for number in range(len(scenes.PHOTOGRAPHS)))
    monkeypatch.setattr(scenes, "photographs", lambda: flat)
    shown = FashionScenes(items, "test")
    grounds = [shown.ground(index) for index in range(30)]
    assert [scenes.PHOTOGRAPHS.index(name) * 10 for name in grounds] == [
        int(shown[i].pixels[0, 0, 0]) for i in range(30)
    ]
    assert len(set(grounds)) > 5
