"""Detection and segmentation as tasks: rows, measures, results, drawings, resumed runs, refusals."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import skimba
from skimba.cli._options import DataOptions
from skimba.cli._pictures import open_split
from skimba.data import IGNORED, SceneMaps, SceneObjects, embedded_test_images, find_images, open_maps, select
from skimba.data.instances import runs_from, runs_of, text_of
from skimba.data.loading import in_order
from skimba.data.scene_targets import dense_scenes
from skimba.store.publish import save_model
from skimba.tasks import TASKS, predict_all, resumable, run, task_of
from skimba.tasks.coco_measure import FIGURES
from skimba.tasks.detection import Detection, Detections
from skimba.tasks.label_text import as_text, from_text
from skimba.tasks.resumable import Run, predict_files, predict_rows
from skimba.tasks.segmentation import Segmentation, Segments
from skimba.tasks.tables import read_rows
from skimba.training import Recipe, train
from tests.cli.test_cli import run as run_command

SCENES = dense_scenes(embedded_test_images()[:6], "test")
OBJECTS, MAPS = SceneObjects(SCENES), SceneMaps(SCENES)
SMALL = {"depth": 2, "embed_dim": 32}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = skimba.mask_rcnn("vim_micro", 10, **SMALL)
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.weight.mul_(30)  # so that untrained scores pass the threshold
    model.roi_head.score_thresh = 0.01
    return model.eval()


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return skimba.upernet("vim_micro", 11, **SMALL).eval()


@pytest.fixture(params=["detection", "segmentation"])
def case(request, detector, segmenter):
    """(task, model, pictures)."""
    model, pictures = (detector, OBJECTS) if request.param == "detection" else (segmenter, MAPS)
    return task_of(model), model, pictures


def perfect(index, score=0.9):
    target = OBJECTS.target(index).read()
    return Detections(
        index, str(index), target.height, target.width,
        tuple(thing.box for thing in target.things), tuple(thing.label for thing in target.things),
        (score,) * len(target.things), tuple(text_of(thing.shape) for thing in target.things),
    )  # fmt: skip


def test_what_is_found_exactly_measures_1_and_nothing_measures_0():
    figures = Detection().measure([perfect(index) for index in range(6)], OBJECTS)
    assert figures["images"] == 6
    assert {figures[f"{kind}_{name}"] for kind in ("box", "mask") for name in ("ap", "ap50", "ap75", "ar100")} == {1.0}
    assert set(figures["box_ap_of_class"].values()) == {1.0}
    empty = [Detections(index, str(index), 128, 128, (), (), (), ()) for index in range(6)]
    figures = Detection().measure(empty, OBJECTS)
    assert (figures["box_ap"], figures["mask_ap"]) == (0.0, 0.0)
    assert len([name for name in figures if name.startswith(("box_a", "mask_a"))]) == 2 * len(FIGURES) + 2


def test_a_box_too_many_costs_precision_and_a_missing_one_recall():
    rows = [perfect(index) for index in range(6)]
    fewer = [*rows[:5], Detections(5, "5", 128, 128, (), (), (), ())]
    assert Detection().measure(fewer, OBJECTS)["box_ar100"] < 1
    more = perfect(0)
    more = Detections(0, "0", 128, 128, ((0.0, 0.0, 9.0, 9.0), *more.boxes), (more.labels[0], *more.labels),
                      (0.99, *more.scores), (text_of(runs_of(np.ones((128, 128), bool))), *more.masks))  # fmt: skip
    assert Detection().measure([more, *rows[1:]], OBJECTS)["box_ap"] < 1


def test_compressed_runs_are_those_of_cocos_tools():
    mask = pytest.importorskip("pycocotools.mask")
    draw = np.random.default_rng(0)
    for height, width, share in ((1, 1, 1.0), (7, 300, 0.5), (40, 9, 0.02), (33, 34, 0.0)):
        shape = draw.random((height, width)) < share
        text = text_of(runs_of(shape))
        assert text == mask.encode(np.asfortranarray(shape.astype(np.uint8)))["counts"].decode()
        assert (runs_from(text, height, width).mask() == shape).all()


class OneMap:
    classes, mode = ("a", "b", "c"), "RGB"

    def __len__(self):
        return 1

    def name(self, index):
        return "x"

    def target(self, index):
        return self

    def read(self):
        return np.array([[0, 0, 1, 1], [0, 1, 1, IGNORED]])


def test_miou_is_that_of_the_confusion_matrix_of_the_whole_set():
    said = np.array([[0, 1, 1, 1], [0, 1, 2, 2]])
    figures = Segmentation().measure([Segments(0, "x", as_text(said), (0, 1, 2), (0.25, 0.5, 0.25))], OneMap())
    assert figures["iou_of_class"] == pytest.approx({"a": 2 / 3, "b": 3 / 5, "c": 0.0})
    assert figures["miou"] == pytest.approx((2 / 3 + 3 / 5) / 3)
    assert figures["pixel_accuracy"] == pytest.approx(5 / 7)
    assert figures["mean_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert "mIoU 42.22%" in Segmentation().describe(figures)


def test_rows_and_figures_do_not_depend_on_how_the_work_is_shared(case):
    task, model, pictures = case
    whole, rejected = predict_all(task, model, pictures, 3)
    assert not rejected
    parts = [in_order(6, 2, rank, 2) for rank in (0, 1)]
    shared = [row for part in parts for answers in run(task, model, pictures, part) for row in answers.rows]
    assert sorted(shared, key=lambda row: row.index) == whole
    assert any(row.labels for row in whole)


def test_an_interrupted_run_goes_on_where_it_stopped(case, tmp_path, monkeypatch):
    task, model, pictures = case
    monkeypatch.setattr(resumable, "CHUNK", 2)
    seen = []

    def stop(rows):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.extend(row.index for row in rows)

    with pytest.raises(KeyboardInterrupt):
        predict_files(task, model, pictures, tmp_path / "a.csv", 2, on_rows=stop)
    seen.clear()
    job = Run(task, model, pictures, 2, on_rows=lambda rows: seen.extend(row.index for row in rows))
    rows, _ = predict_rows(job, tmp_path / "a.csv")
    assert seen == [4, 5]
    assert rows == predict_all(task, model, pictures, 6)[0] == read_rows(tmp_path / "a.csv", task.row)


def test_results_are_those_that_cocos_tools_take(detector, tmp_path):
    task = task_of(detector)
    rows, _ = predict_all(task, detector, OBJECTS, 6)
    task.write(rows, OBJECTS, tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found) == sum(len(row.boxes) for row in rows) > 0
    assert found[0].keys() >= {"image_id", "category_id", "bbox", "score", "segmentation"}


def test_label_maps_are_written_as_pictures(segmenter, tmp_path):
    task = task_of(segmenter)
    rows, _ = predict_all(task, segmenter, MAPS, 6)
    task.write(rows, MAPS, tmp_path / "maps")
    with Image.open(tmp_path / "maps" / "000002_2.png") as png:
        assert (np.asarray(png) == from_text(rows[2].png)).all()
    with torch.inference_mode():
        image = task.reader(segmenter).read(MAPS, 2)[0]
        assert (from_text(rows[2].png) == segmenter([image])[0]["classes"].numpy()).all()


@pytest.mark.parametrize("size", [(16, 9), (128, 128), (900, 700)])
def test_drawings_are_readable_at_any_size(size):
    width, height = size
    picture = Image.new("RGB", size, "white")
    mask = np.zeros((height, width), bool)
    mask[: height // 2, : width // 2] = True
    box, runs = (0.0, 0.0, width / 2, height / 2), text_of(runs_of(mask))
    row = Detections(0, "x", height, width, (box,), (3,), (0.9,), (runs,), ("Dress",))
    drawn = Detection().draw(picture, row)
    assert max(drawn.size) >= 640
    assert np.asarray(drawn).std() > 5
    nothing = Detection().draw(picture, Detections(0, "x", height, width, (), (), (), ()))
    assert (np.asarray(nothing) == 255).all()
    maps = Segmentation().draw(
        picture, Segments(0, "x", as_text(mask.astype(int)), (0, 1), (0.75, 0.25), ("no", "yes"))
    )
    assert maps.size == drawn.size


def test_predict_draws_and_names_what_is_too_small(case, tmp_path, monkeypatch, capsys):
    _, model, _ = case
    save_model(model, tmp_path / "model.safetensors")
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    OBJECTS.picture(0).save(photographs / "a.png")
    OBJECTS.picture(1).resize((90, 50)).save(photographs / "b.jpg")
    Image.new("RGB", (5, 90)).save(photographs / "tiny.png")
    out = tmp_path / ("found.json" if isinstance(task_of(model), Detection) else "found")
    run_command(monkeypatch, "predict", tmp_path / "model.safetensors", photographs, "--out", out,
                "--draw", tmp_path / "drawn", "--workers", 0)  # fmt: skip
    assert "2 predictions" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["000000_a.png", "000001_b.png"]
    assert "smaller than a patch (8 px)" in (tmp_path / (out.name + ".rejects.csv")).read_text()
    assert out.exists()


def test_broken_maps_are_named_and_left_out_of_training_and_evaluation(tmp_path, segmenter):
    for split in ("train", "val"):
        for number in range(4):
            for kind, size in (("images", (24, 24)), ("annotations", (24, 9 if number == 2 else 24))):
                path = tmp_path / "data" / kind / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", size, number).save(path)
        (tmp_path / "data" / "annotations" / split / "0.png").write_bytes(b"broken")
    (tmp_path / "data" / "classes.txt").write_text("\n".join(MAPS.classes))
    trained, tested = (open_maps(tmp_path / "data", split) for split in ("train", "test"))
    rows, rejected = predict_all(task_of(segmenter), segmenter, tested, 4)
    assert [row.name for row in rows] == ["1.png", "3.png"]
    assert "0.png cannot be read" in rejected[0].reason
    assert "2.png is 24 by 24 pixels, its map 24 by 9" in rejected[1].reason
    named = []
    recipe = Recipe("vim_micro", kind="upernet", sizes=SMALL, augmentation="mirror", epochs=1, batch_size=4)
    found = train(
        recipe, trained, tested, tmp_path / "run", on_rejected=lambda some: named.extend(one.name for one in some)
    )
    assert found["images"] == 2
    assert {"0.png", "2.png"} <= set(named)


def test_faults_of_the_data_are_told(tmp_path, capsys):
    for kind, names in (("images", "ab"), ("annotations", "b")):
        (tmp_path / kind / "val").mkdir(parents=True)
        for name in names:
            Image.new("L", (24, 24)).save(tmp_path / kind / "val" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("sky\n")
    assert len(open_split(skimba.upernet("vim_micro", 1, **SMALL), DataOptions(), "test", tmp_path)) == 1
    assert capsys.readouterr().err.split() == [
        "left",
        "out",
        "of",
        "the",
        "test",
        "set:",
        "1",
        "with",
        "no",
        "map",
        "(a)",
    ]


@pytest.mark.parametrize("name", ["detection", "segmentation"])
def test_other_targets_settings_and_teachers_are_refused_in_a_line(name, tmp_path, detector, segmenter):
    model, task = (detector, Detection) if name == "detection" else (segmenter, Segmentation)
    other = MAPS if name == "detection" else OBJECTS
    for pictures in (embedded_test_images()[:4], other):
        with pytest.raises(ValueError, match=r"the pictures have no .* to train on, for instance 0"):
            TASKS[name]().check_targets(pictures)
    with pytest.raises(ValueError, match=f"augmentation must be one of mirror, .* for {name}, got 'shift'"):
        task(augmentation="shift").training_reader(model)
    with pytest.raises(ValueError, match=f"{name} does not learn from a teacher"):
        task().criterion(model, model)
    row = Detections(0, "0", 9, 9, (), (), (), ()) if name == "detection" else Segments(0, "0", "", (), ())
    with pytest.raises(ValueError, match="use skimba predict"):
        task().measure([row], embedded_test_images()[:1])
    with pytest.raises(ValueError, match=r"the pictures have 10 classes, the model 11|11 classes, the model 10"):
        task().check(model, other)
    kind = "mask_rcnn" if name == "detection" else "upernet"
    for pretrained, says in ((True, "must be the data set"), ("mars", "no weights 'mars' are published")):
        with pytest.raises(ValueError, match=says):
            Recipe("vim_micro", kind=kind, pretrained=pretrained).dense_model()


@pytest.mark.parametrize(("kind", "pictures"), [("mask_rcnn", OBJECTS), ("upernet", MAPS)])
def test_it_learns(kind, pictures, tmp_path):
    losses = []
    recipe = Recipe("vim_micro", kind=kind, sizes=SMALL, augmentation="mirror", epochs=8, batch_size=2, tested=1)
    train(recipe, select(pictures, range(2)), pictures, tmp_path, lambda now: losses.append(now.loss))
    assert len(losses) == 8
    assert losses[-1] < 0.9 * losses[0]
    again = skimba.load_model(tmp_path / "weights.safetensors")
    assert task_of(again).check(again, pictures) is None
    other = {"mask_rcnn": skimba.upernet, "upernet": skimba.mask_rcnn}[kind]
    with pytest.raises(ValueError, match="holds the weights of"):
        other("vim_micro", 10, checkpoint=tmp_path / "weights.safetensors", **SMALL)


def test_classification_draws_too(tmp_path, monkeypatch, capsys):
    OBJECTS.picture(0).convert("L").resize((28, 28)).save(tmp_path / "a.png")
    run_command(monkeypatch, "predict", "vim_micro", tmp_path / "a.png", "--out", tmp_path / "a.csv",
                "--draw", tmp_path / "drawn", "--workers", 0)  # fmt: skip
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["000000_a.png"]
    assert len(find_images([tmp_path / "drawn"])) == 1
