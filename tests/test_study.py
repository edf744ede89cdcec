import json
from dataclasses import fields

import numpy as np
import pytest

from benchmarks import report, study, subjects, tables
from benchmarks.intervals import loss_interval
from skimba.data import FashionScenes, embedded_test_images
from skimba.pruning import prune


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The study on forty images and one model, its results in a folder of the test's."""
    images = embedded_test_images()[:40]
    for module in (study, subjects):
        monkeypatch.setattr(module, "images", lambda name, split: images)
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(study, "METHODS", {name: study.METHODS[name] for name in ("condensed", "hold")})
    monkeypatch.setattr(study, "ABLATIONS", {name: study.ABLATIONS[name] for name in ("clip, none", "clip, hold")})
    monkeypatch.setattr(study, "MODELS", ("vim_micro",))
    return tmp_path


def test_finished_runs_are_not_repeated_and_make_the_page(small, monkeypatch):
    arguments = ["--part", "methods", "--part", "ablations"]
    study.main(arguments)
    lines = study.read_results()
    assert len(lines) == 1 + 4 * 2 + 2
    by_name = {(line["method"], line["reduction"]): line for line in lines}
    for reduction in study.REDUCTIONS:
        share = by_name["hold", reduction]["exact_share"]
        assert 1 - reduction - 0.02 < share <= 1 - reduction
    assert by_name["dense", None]["accuracy"] > by_name["condensed", 0.4]["accuracy"]
    study.main(arguments)
    assert study.read_results() == lines
    study.RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    study.main(arguments)
    assert study.read_results() == lines
    (small / "verdict.md").write_text("Hold holds.\n")
    for name in ("METHODS", "ABLATIONS", "MODELS"):
        for module in (report, tables):
            monkeypatch.setattr(module, name, getattr(study, name), raising=False)
    monkeypatch.setattr(report, "DOCS", small)
    monkeypatch.setattr(report, "README", small / "README.md")
    report.README.write_text(f"Before.\n{report.BEGIN}old\n{report.END}\nAfter.\n")
    report.main()
    page = (small / "results.md").read_text()
    assert f"| dense | {100 * by_name['dense', None]['accuracy']:.1f} |" in page
    assert "Hold holds." in page
    first, *rows, last = report.README.read_text().splitlines()
    assert (first, last) == ("Before.", "After.")
    assert len(rows) == 2 + 2 + 1 + len(study.REDUCTIONS)
    assert f"| -40 % | **{100 * by_name['hold', 0.4]['accuracy']:.1f} %** |" in rows[-3]
    assert (small / "accuracy_flops.png").read_bytes().startswith(b"\x89PNG")


def test_every_setting_of_the_study_can_be_pruned_by():
    model = study.dense("vim_micro")
    for method, schedule in study.ABLATIONS.values():
        assert prune(model, method, schedule).reducer is not None
    for method in (*study.METHODS.values(), *study.TRAINED.values()):
        assert prune(model, method, {2: 0.7}).reducer is not None


def test_every_run_that_was_measured_is_one_of_the_study():
    known = {run for runs, _ in study.PARTS.values() for run in runs()}
    lines = study.read_results()
    assert len(lines) > 300
    for line in lines:
        assert study.Run(**{field.name: line[field.name] for field in fields(study.Run)}) in known


def test_an_interval_is_that_of_a_bootstrap_over_the_images():
    change = np.array([1] * 30 + [-1] * 12 + [0] * 358)  # what each image loses
    draws = np.random.default_rng(1).integers(len(change), size=(4000, len(change)))
    expected = np.quantile(100 * change[draws].mean(1), [0.025, 0.975])
    assert loss_interval(30, 12, 400) == pytest.approx(expected, abs=0.3)
    assert loss_interval(0, 0, 400) == (0, 0)


def test_runs_count_the_images_whose_answer_changes(small):
    study.main(["--part", "methods", "--method", "condensed", "--method", "dense", "--reduction", "0.5"])
    (line,) = study.read_results()
    (dense,) = [study.evaluate(study.Run("methods", "vim_micro", "dense"))]
    assert (dense["lost"], dense["gained"], dense["images"]) == (0, 0, 40)
    assert (line["lost"] - line["gained"]) / 40 == pytest.approx(dense["accuracy"] - line["accuracy"])
    assert line["lost"] > 0


def test_readme_shows_what_is_stored():
    lines = [line for line in study.read_results() if "out_of_reach" not in line]
    assert tables.readme(lines) in report.README.read_text()


def test_subjects_are_models_with_weights_for_their_data():
    for name, subject in subjects.SUBJECTS.items():
        classes = subjects.dense(name).num_classes
        assert classes == {"clips": 40, "20 classes": 20}.get(subject.data, 10)
    assert study.FURTHER


def test_twenty_classes_tell_items_on_things_from_items_on_textures(monkeypatch):
    items = embedded_test_images()[:60]
    monkeypatch.setattr(subjects, "items", lambda split: items)
    found = subjects.scenes_and_grounds("test")
    assert found.labels.tolist() == [
        2 * int(item) + (ground in subjects.TEXTURES)
        for item, ground in zip(items.labels, map(FashionScenes(items, "test").ground, range(60)), strict=True)
    ]
    assert found.classes[2 * int(items.labels[0])].startswith(items.classes[int(items.labels[0])])
    assert 10 < len(set(found.labels.tolist())) <= 20
