import torch
from PIL import Image

import skimba
from skimba.insight import trace
from skimba.insight.drawing import draw_stages, kept_mask, outlines, paint, token_map
from skimba.insight.style import THEMES


def test_the_mask_shows_the_tokens_that_are_left(model, images):
    stages = trace(skimba.prune(model, "top", {1: 0.5, 3: 0.5}), images)
    assert [kept_mask(tokens).sum((1, 2)).tolist() for tokens in stages] == [[48] * 3, [24] * 3, [12] * 3]
    last = stages[-1]
    full = [
        p for p in range(last.layout.full_length) if p not in last.layout.extras
    ]  # positions of the grid, in raster order
    for image in range(3):
        kept = [p in last.position[image].tolist() for p in full]
        assert kept_mask(last)[image].flatten().tolist() == kept


def test_a_picture_is_written(model, images, tmp_path):
    pruned = skimba.prune(model, schedule={1: 0.5})
    with torch.no_grad():
        draw_stages({"hold": pruned}, images, images.sigmoid(), tmp_path / "kept.png")
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100


def test_the_map_names_the_token_of_every_position(model, images):
    with torch.no_grad():
        held, decayed = (trace(skimba.prune(model, name, {1: 0.5}), images)[-1] for name in ("hold", "top"))
    found = token_map(held)
    assert found.min() >= 0  # every position has an owner
    size = torch.nn.functional.one_hot(found.flatten(1), held.x.shape[1]).sum(1)
    image_token = ~held.is_extra
    assert torch.equal(size[image_token], held.layout.size[image_token].long())
    missing = token_map(decayed) < 0
    assert torch.equal(missing, ~kept_mask(decayed))


def test_merged_patches_take_their_mean_and_dropped_ones_fade():
    picture = torch.rand(3, 4, 6)
    owner = torch.tensor([[0, 0, 1], [2, -1, -1]])
    painted = paint(picture, owner)
    mean = picture[:, :2, :4].mean((1, 2), keepdim=True).expand(3, 2, 4)
    torch.testing.assert_close(painted[:, :2, :4], mean)
    assert torch.equal(painted[:, :2, 4:], picture[:, :2, 4:])
    assert torch.equal(painted[:, 2:, :2], picture[:, 2:, :2])
    tint = torch.tensor(THEMES["light"].dropped)[:, None, None]
    assert ((painted - tint).abs()[:, 2:, 2:] < (picture - tint).abs()[:, 2:, 2:]).all()


def test_only_merged_regions_are_outlined():
    owner = torch.tensor([[0, 0, 1], [2, -1, -1]])
    sides = outlines(owner, (4, 6))
    assert len(sides) == 6  # around two patches side by side
    assert {x for side in sides for x, _ in side} == {-0.5, 1.5, 3.5}
    assert {y for side in sides for _, y in side} == {-0.5, 1.5}
