"""Detectors and segmenters in the explorer: what the page is told equals what the library says."""

import io
import json
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional

import skimba
from skimba.explorer import Explorer, embedded_offers, named_offer
from tests.explorer.conftest import DENSE, send

HELD = {"method": "hold", "share": 0.7}
SIDES = {"dense": {"method": "dense"}, "hold": HELD}
MAKE = {"mask_rcnn": skimba.mask_rcnn, "upernet": skimba.upernet}


@pytest.fixture(scope="module")
def models():
    found = {}
    for name in DENSE:
        kind, _, of = name.partition(":")
        dense = MAKE[kind](of, pretrained="scenes").eval()
        found[name] = {"dense": dense, "hold": skimba.prune(dense, "hold", {1: 0.7, 3: 0.7})}
    return found


def scene(server, number):
    """The example as the page shows it, and as the models take it."""
    status, content = send(server, "GET", f"/api/seen?{urlencode({'model': DENSE[0], 'picture': f'example:{number}'})}")
    assert status == 200
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def as_tensor(picture):
    return functional.pil_to_tensor(picture).float() / 255


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", DENSE)
def test_what_is_found_kept_and_paid_is_the_librarys(server, ask, models, name, side):
    status, found = ask("answer", model=name, picture="example:1", side=SIDES[side])
    assert status == 200, found
    model = models[name][side]
    with torch.inference_mode():
        wanted = model([as_tensor(scene(server, 1))])[0]
    if name.startswith("mask_rcnn"):
        shown = wanted["scores"] >= 0.5
        numbers, values = (wanted["labels"][shown] - 1).tolist(), wanted["scores"][shown].tolist()
    else:
        counts = torch.bincount(wanted["classes"].flatten(), minlength=11)
        order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
        numbers, values = order.tolist(), (counts[order] / counts.sum()).tolist()
    assert numbers
    assert [one["number"] for one in found["classes"]] == numbers
    assert [one["probability"] for one in found["classes"]] == pytest.approx(values, abs=1e-5)
    assert found["gflops"]["exact"] == skimba.count_flops(model, convention="exact").total / 1e9
    assert [one["tokens"] for one in found["stages"]] == ([256] if side == "dense" else [256, 180, 126])


@pytest.mark.parametrize("name", DENSE)
def test_what_is_found_is_drawn_on_the_picture(server, name):
    pictures = {}
    for side in SIDES.values():
        asked = {"model": name, "picture": "example:1", "side": json.dumps(side)}
        status, content = send(server, "GET", f"/api/drawn?{urlencode(asked)}")
        assert status == 200, content
        with Image.open(io.BytesIO(content)) as image:
            pictures[side["method"]] = np.asarray(image.convert("RGB"))
    plain = np.asarray(scene(server, 1).resize((640, 640), Image.Resampling.NEAREST))
    assert pictures["dense"].shape == pictures["hold"].shape == plain.shape
    assert (pictures["dense"] != plain).any(-1).mean() > 0.02


def test_a_photo_is_cut_to_the_size_of_the_model_and_timed(server, ask):
    pixels = np.random.default_rng(0).integers(0, 255, (90, 200, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    explorer = Explorer({DENSE[1]: named_offer(DENSE[1])})
    try:
        picture = explorer.add(buffer.getvalue())["picture"]
        question = {"model": DENSE[1], "picture": picture}
        seen = explorer.image(question)[0]
        wanted = as_tensor(ImageOps.fit(Image.fromarray(pixels), (128, 128)))
        assert torch.equal(seen, wanted)
        assert all(ms > 0 for ms in explorer.ask("times", {**question, "sides": list(SIDES.values())}))
    finally:
        explorer.close()


def test_views_of_classifiers_refuse_in_a_sentence(ask, server):
    for question in ("patch", "line", "memory"):
        _, found = ask(question, model=DENSE[0], picture="example:0", side=HELD, block=1, patch=0)
        assert "is no classifier" in found["error"]
    asked = {"model": "vim_micro", "picture": "example:0", "side": json.dumps(HELD)}
    status, content = send(server, "GET", f"/api/drawn?{urlencode(asked)}")
    assert status == 400
    assert "draws nothing" in json.loads(content)["error"]
    status, content = send(server, "GET", f"/api/drawn?{urlencode({**asked, 'side': 'x'})}")
    assert (status, json.loads(content)["error"]) == (400, "the side is not JSON")


def test_models_whose_weights_are_in_the_package_are_offered():
    assert set(DENSE) <= set(embedded_offers())
    with pytest.raises(ValueError, match="no weights of upernet:vim_tiny"):
        named_offer("upernet:vim_tiny")
