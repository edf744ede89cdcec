"""The embedded models and what the demo shows of them."""

import json
import sys

import pytest
from PIL import Image

import skimba
from skimba.cli import main
from skimba.data import embedded_test_images
from skimba.models.evaluation import accuracy, predict
from skimba.reports import demo


@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", demo.MODELS)
def test_the_embedded_models_recognise_the_embedded_images(name, count):
    model = skimba.create_model(name, pretrained=True)
    images = embedded_test_images()[:count]
    assert accuracy(*predict(model, images.batches(100))) > 0.86


@pytest.mark.parametrize("name", demo.MODELS)
def test_hold_stands_far_above_condensed(name):
    model = skimba.create_model(name, pretrained=True)
    images = embedded_test_images()[:200]
    found = {
        method: accuracy(*predict(skimba.prune(model, method, dict.fromkeys(demo.STAGES, 0.5)), images.batches(100)))
        for method in ("condensed", "hold")
    }
    assert found["hold"] > found["condensed"] + 0.15


def test_the_demo_measures_every_variant(monkeypatch, capsys, tmp_path):
    few = embedded_test_images()[:5]
    monkeypatch.setattr(demo, "SHARES", (0.8, 0.5))
    monkeypatch.setattr("skimba.cli._class_demo.embedded_test_images", lambda: few)
    monkeypatch.setattr(sys, "argv", ["skimba", "demo", "--json", "--picture", str(tmp_path / "demo.png")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 5
    expected = {(m, "dense", 1.0) for m in demo.MODELS}
    expected |= {(m, method, share) for m in demo.MODELS for method in demo.TITLES for share in demo.SHARES}
    assert {(row["model"], row["method"], row["keep"]) for row in found["rows"]} == expected
    assert all(row["time_ms"] > 0 and row["exact_gflops"] > 0 for row in found["rows"])
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.format == "PNG"
