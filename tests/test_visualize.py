import torch
from PIL import Image

import skimba
from skimba.insight import trace
from skimba.insight.drawing import draw_stages, kept_mask


def test_the_mask_shows_the_tokens_that_are_left(model, images):
    stages = trace(skimba.prune(model, "top", keep={1: 0.5, 3: 0.5}), images)
    assert [kept_mask(tokens).sum((1, 2)).tolist() for tokens in stages] == [[48] * 3, [24] * 3, [12] * 3]
    last = stages[-1]
    full = [
        p for p in range(last.layout.full_length) if p != last.class_position
    ]  # positions of the grid, in raster order
    for image in range(3):
        kept = [p in last.position[image].tolist() for p in full]
        assert kept_mask(last)[image].flatten().tolist() == kept


def test_a_picture_is_written(model, images, tmp_path):
    pruned = skimba.prune(model, keep={1: 0.5})
    with torch.no_grad():
        draw_stages({"hold": pruned}, images, images.sigmoid(), tmp_path / "kept.png")
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
