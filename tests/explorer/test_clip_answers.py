"""Clips in the explorer: what the page is told equals what the library says."""

import io
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image

import skimba
from skimba.data import MovingItems, embedded_test_images
from skimba.data.transforms import evaluation_transform
from skimba.explorer import Explorer, embedded_offers, named_offer
from skimba.explorer.catalogue import Opened
from skimba.insight import hidden_attention, receptive_field, trace
from skimba.insight.drawing import token_map
from tests.explorer.conftest import send, upload

NAME, EXAMPLE = "videomamba_micro", 2
PRUNED = {"method": "hold_clips", "share": 0.7}
SIDES = {"dense": {"method": "dense"}, "hold_clips": PRUNED}


@pytest.fixture(scope="module")
def models():
    dense = skimba.create_model(NAME, pretrained=True).eval()
    return {"dense": dense, "hold_clips": skimba.prune(dense, "hold_clips", {1: 0.7})}


@pytest.fixture(scope="module")
def clip(models):
    """``(1 3 8 48 48)`` the first clip of the third item."""
    items = embedded_test_images()
    frames = MovingItems(items, "test").frames(int((items.labels == EXAMPLE).nonzero()[0]), 8)
    return torch.stack([evaluation_transform(models["dense"])(frame) for frame in frames], 1)[None]


@pytest.mark.parametrize("side", SIDES)
def test_answers_tokens_of_every_frame_and_flops_are_the_librarys(ask, models, clip, side):
    status, found = ask("answer", model=NAME, picture=f"example:{EXAMPLE}", side=SIDES[side])
    assert status == 200, found
    model = models[side]
    with torch.inference_mode():
        wanted, stages = model(clip)[0].softmax(0).topk(5), trace(model, clip)
    assert [one["number"] for one in found["classes"]] == wanted.indices.tolist()
    assert [one["probability"] for one in found["classes"]] == pytest.approx(wanted.values.tolist(), abs=1e-6)
    classes = MovingItems(embedded_test_images(), "test").classes
    assert [one["name"] for one in found["classes"]] == [classes[number] for number in wanted.indices.tolist()]
    assert (found["grid"], found["frames"]) == ([48, 6], 8)
    assert found["gflops"]["exact"] == skimba.count_flops(model, convention="exact").total / 1e9
    assert len(found["stages"]) == len(stages)
    for stage, tokens in zip(found["stages"], stages, strict=True):
        assert stage["tokens"] == tokens.layout.image_count
        owner = token_map(tokens)[0].flatten()
        home = torch.tensor(stage["home"])
        assert torch.equal(home[:, None] == home, owner[:, None] == owner)
        assert all(home[one] == one for one in stage["home"])


def test_frames_stand_below_one_another_in_the_picture(server, models):
    status, content = send(server, "GET", f"/api/seen?{urlencode({'model': NAME, 'picture': f'example:{EXAMPLE}'})}")
    assert status == 200
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("RGB"))
    items = embedded_test_images()
    frames = MovingItems(items, "test").frames(int((items.labels == EXAMPLE).nonzero()[0]), 8)
    assert np.array_equal(pixels, np.concatenate([np.asarray(frame) for frame in frames]))


def test_a_photo_is_a_clip_that_stands_still(server, ask, models):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    picture = upload(server, buffer.getvalue())[1]["picture"]
    _, found = ask("answer", model=NAME, picture=picture, side=SIDES["dense"])
    still = evaluation_transform(models["dense"])(Image.fromarray(pixels))[None, :, None].expand(-1, -1, 8, -1, -1)
    with torch.inference_mode():
        wanted = models["dense"](still)[0].softmax(0).max().item()
    assert found["classes"][0]["probability"] == pytest.approx(wanted, abs=1e-6)


def test_what_a_patch_reads_and_depends_on_is_told_for_every_frame(ask, models, clip):
    asked = {"model": NAME, "picture": f"example:{EXAMPLE}", "side": PRUNED, "block": 5, "patch": 100}
    _, read = ask("patch", **asked)
    weight = hidden_attention(models["hold_clips"], clip, 5, positions=[101], include=("convolution", "gate"))
    wanted = weight.maps[0, :, 0].flatten(1) / weight.weight.sum()  # the class token stands first
    torch.testing.assert_close(torch.tensor(read["reads"]), wanted, atol=1e-5, rtol=1e-3)
    _, remembered = ask("memory", **asked)
    field = receptive_field(models["hold_clips"], clip, 101, 5)
    by_patch = field.unflatten(2, (6, 8)).unflatten(1, (6, 8)).sum((2, 4)).flatten()
    torch.testing.assert_close(torch.tensor(remembered["field"]), by_patch / by_patch.sum(), atol=1e-6, rtol=1e-3)
    _, line = ask("line", **{name: asked[name] for name in ("model", "picture", "side", "block")})
    assert all(sorted(scan["visits"]) == [-1, *range(288)] for scan in line["scans"])


def test_times_are_measured_and_the_code_names_a_clip(ask):
    picture = f"example:{EXAMPLE}"
    _, taken = ask("times", model=NAME, picture=picture, sides=list(SIDES.values()))
    assert min(taken) > 0
    _, found = ask("answer", model=NAME, picture=picture, side=PRUNED)
    assert found["code"]["command"].startswith(f"skimba predict {NAME} CLIP ")
    _, known = ask("model", model=NAME)
    assert known["examples"][EXAMPLE].startswith("Pullover ")
    assert not known["measurable"]


def test_the_model_of_clips_is_offered():
    assert NAME in embedded_offers()
    explorer = Explorer({NAME: named_offer(NAME)})
    assert explorer.offers[NAME].gallery.labelled is None
    explorer.close()


def test_models_of_more_frames_get_more_of_a_clip():
    opened = Opened(named_offer(NAME))
    assert opened.tensor(opened.offer.gallery.examples()[0].frames(16)).shape == (1, 3, 16, 48, 48)
