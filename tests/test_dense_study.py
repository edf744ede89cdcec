import json

import pytest
import torch

import skimba
from benchmarks import dense_report, dense_study
from benchmarks.storm import InsideBlocks, on_the_grid
from skimba.data import Selected
from skimba.data.dense_opening import open_maps, open_objects
from skimba.pruning import Pairs, Stage
from skimba.tokens import NONE, Layout, Tokens

SIZES = {"embed_dim": 32, "depth": 4}  # untrained: what the study does is tested here, not what it finds


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The study on four scenes with narrow models, its results in a folder of the test's."""
    made = {
        "detection": skimba.mask_rcnn("vim_micro", num_classes=10, **SIZES).eval(),
        "segmentation": skimba.upernet("vim_micro", num_classes=11, **SIZES).eval(),
    }
    scenes = {"detection": open_objects(None, "test"), "segmentation": open_maps(None, "test")}
    for module in (dense_study, dense_report):
        monkeypatch.setattr(module, "MODELS", ("vim_micro",))
        monkeypatch.setattr(module, "METHODS", {name: dense_study.METHODS[name] for name in ("hold", "top")})
        monkeypatch.setattr(module, "REDUCTIONS", (0.4,))
    monkeypatch.setattr(dense_study, "dense", lambda task, model: made[task])
    monkeypatch.setattr(dense_study, "pictures", lambda task: Selected(scenes[task], range(4)))
    monkeypatch.setattr(dense_study, "RESULTS", tmp_path / "dense_results.jsonl")
    monkeypatch.setattr(dense_study, "ROUNDS", 1)
    return tmp_path


def test_finished_runs_are_not_repeated_and_make_the_page(small):
    arguments = ["--part", "segmentation", "--method", "dense", "--method", "hold", "--method", "storm"]
    arguments += ["--restore", "last", "--restore", "zeros"]
    dense_study.main(arguments)
    lines = dense_study.read_results()
    assert [(line["method"], line["restore"]) for line in lines] == [
        ("dense", "last"),
        ("hold", "last"),
        ("storm", "last"),
        ("hold", "zeros"),
    ]
    dense, hold, storm, *_ = lines
    assert (dense["backbone_share"], dense["whole_share"], dense["images"]) == (1, 1, 4)
    assert 0.55 < hold["backbone_share"] <= 0.6 < hold["whole_share"] < 1
    assert 0.8 < storm["backbone_share"] < 1
    assert len({line["miou"] for line in lines}) > 1
    dense_study.RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    dense_study.main(arguments)
    assert dense_study.read_results() == lines
    dense_report.write_dense_page(small)
    page = (small / "dense_results.md").read_text()
    assert f"| vim_micro | dense | 100.0 | 100.0 | {100 * dense['miou']:.1f} |" in page
    assert "box AP" in page


def test_detectors_are_measured_and_timed(small):
    dense_study.main(["--part", "detection", "--method", "top", "--restore", "last"])
    dense_study.main(["--part", "time", "--task", "detection", "--method", "top"])
    measured, timed = dense_study.read_results()
    assert 0 <= measured["box_ap"] <= measured["box_ap50"] <= 1
    assert measured["backbone_share"] == timed["backbone_share"] < 0.61
    assert timed["speedup"] > 0


def test_without_results_no_page_is_written(small):
    dense_report.write_dense_page(small)
    assert not (small / "dense_results.md").exists()


def test_every_restore_of_the_study_can_be_shown():
    model = skimba.upernet("vim_micro", num_classes=3, img_size=32, embed_dim=16, depth=4).eval()
    runs = {(run.method, run.restore) for run in dense_study.accuracy_runs("segmentation")}
    for method, restore in sorted(runs):
        if method not in dense_study.METHODS:
            continue
        pruned = skimba.prune(model, dense_study.METHODS[method], {1: 0.5})
        pruned.backbone.restore = restore
        with torch.no_grad():
            assert all(one.isfinite().all() for one in pruned.backbone.forward_maps(torch.rand(1, 3, 32, 32)))


def test_inside_a_block_tokens_are_fewer_and_after_it_they_are_all_there():
    x = torch.randn(2, 30, 8)
    whole = Tokens(x, Layout((5, 6), device=x.device))
    reducer = InsideBlocks()
    assert reducer(whole, 1) is whole
    inside = reducer(whole, 3)
    assert inside.layout.image_count == 15
    after = reducer(inside, 4)
    assert after.layout.position is None
    assert torch.equal(after.x, inside.scatter().flatten(1, 2))
    merged = Pairs("sequence", "cosine")(whole, Stage(20, NONE))
    assert torch.equal(on_the_grid(merged).x, merged.scatter().flatten(1, 2))
