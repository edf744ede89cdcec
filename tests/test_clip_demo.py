"""The model of clips in the package, and what the demo shows of it."""

import json
import sys

import pytest
from PIL import Image

from skimba.cli import main
from skimba.data import embedded_test_images, open_clips
from skimba.data.scenes import photographs
from skimba.reports import clip_demo
from tests.cli.test_cli import run


def test_the_demo_measures_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clip_demo, "CLIPS", 20)
    monkeypatch.setattr(clip_demo, "REDUCTIONS", (0.6,))
    run(monkeypatch, "demo", "--task", "clips", "--picture", tmp_path / "a.png", "--json")
    found = json.loads(capsys.readouterr().out)
    dense, *pruned = found["rows"]
    assert found["clips"] == 20
    assert dense["accuracy"] > 0.5  # of 40 classes
    assert [row["method"] for row in pruned] == list(clip_demo.TITLES)
    for row in pruned:
        assert row["exact_gflops"] / dense["exact_gflops"] == pytest.approx(0.4, abs=0.01)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > picture.height


def test_the_two_holds_differ_in_frames_alone():
    space, both = (clip_demo.TITLES[title].to_dict() for title in ("hold in space", "hold in space and time"))
    assert space["reduction"]["pairs"].pop("within") == "frame"
    assert both["reduction"]["pairs"].pop("within") == "clip"
    assert space["reduction"] == both["reduction"]


def test_its_clips_are_those_of_the_packages_items():
    shown = clip_demo.clips()
    assert len(shown) == clip_demo.CLIPS == len(embedded_test_images())
    opened = open_clips(None, "test")
    assert [shown.target(index) for index in range(50)] == [opened.target(index) for index in range(50)]


def test_without_photographs_one_line_says_what_to_install(monkeypatch, capsys, tmp_path):
    photographs.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    monkeypatch.setattr(sys, "argv", ["skimba", "demo", "--task", "clips", "--picture", str(tmp_path / "a.png")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code not in (0, None)
    assert "pip install 'skimba[scenes]'" in capsys.readouterr().err
