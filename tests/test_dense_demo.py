"""The detectors and segmenters in the package, and what the demo shows of them."""

import json

import pytest
from PIL import Image

from skimba.reports import dense_demo
from skimba.reports.demo import TITLES
from tests.cli.test_cli import run


@pytest.mark.parametrize(("asked", "figure", "least"), [("detect", "box_ap50", 0.6), ("segment", "miou", 0.3)])
def test_the_demo_measures_and_draws(asked, figure, least, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dense_demo, "SCENES", 8)
    run(monkeypatch, "demo", "--task", asked, "--picture", tmp_path / "a.png", "--json")
    found = json.loads(capsys.readouterr().out)
    for name in dense_demo.MODELS:
        dense, *pruned = rows = [row for row in found["rows"] if row["model"] == name]
        assert [row["method"] for row in rows] == ["dense", *TITLES]
        assert dense["figures"][figure] > least
        assert all(row["backbone_gflops"] < dense["backbone_gflops"] for row in pruned)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * dense_demo.SIDE, dense_demo.DRAWN * dense_demo.SIDE)
