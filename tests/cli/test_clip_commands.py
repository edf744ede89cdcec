"""Clips on the command line: predict, draw, eval, train."""

import csv
import json

import pytest

import skimba
from tests.cli.test_cli import run
from tests.data.test_clips import write_clip


@pytest.fixture
def model(tmp_path):
    model = skimba.create_model("videomamba_micro", depth=2, num_classes=2, frames=4)
    model.pretrained_cfg["label_names"] = ("jump", "run")
    skimba.save_model(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def clips(tmp_path):
    for name in ("jump/a.mp4", "jump/b.mkv", "run/c.avi"):
        write_clip(tmp_path / "clips" / name, count=5)
    return tmp_path / "clips"


def test_clips_are_predicted_and_drawn_and_broken_ones_named(tmp_path, model, clips, monkeypatch):
    (clips / "run" / "broken.mp4").write_bytes(b"no clip at all")
    out, drawn = tmp_path / "out.csv", tmp_path / "drawn"
    run(monkeypatch, "predict", model, clips, "--prune", "hold", "--schedule", "1:0.6", "--out", out, "--draw", drawn)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"].rsplit("/")[-1] for row in rows] == ["a.mp4", "b.mkv", "c.avi"]
    rejects = (tmp_path / "out.csv.rejects.csv").read_text()
    assert "broken.mp4" in rejects
    assert "cannot be read as a clip" in rejects
    assert len(list(drawn.rglob("*.png")) + list(drawn.rglob("*.jpg"))) == 3


def test_clips_are_evaluated(tmp_path, model, clips, monkeypatch, capsys):
    run(monkeypatch, "eval", model, "--data", clips, "--json")
    assert json.loads(capsys.readouterr().out)["images"] == 3


def test_a_model_of_clips_is_trained_on_clips(tmp_path, clips, monkeypatch):
    settings = ["sizes.depth=1", "sizes.frames=2", "batch_size=2", "epochs=1"]
    run(monkeypatch, "train", "videomamba_micro", "--data", clips, "--out", tmp_path / "run", *settings)
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text())["test_images"] == 3
