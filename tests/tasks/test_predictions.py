import csv
import json
import signal
from dataclasses import replace

import pytest
import torch

from skimba.data import embedded_test_images, find_images
from skimba.models.evaluation import accuracy, predict
from skimba.pruning import prune
from skimba.store import create_model
from skimba.tasks import CLASSIFICATION, ClassPrediction, predict_all, resumable
from skimba.tasks.classification import confusion, real_accuracy, top_share
from skimba.tasks.comparison import compare
from skimba.tasks.resumable import predict_files
from skimba.tasks.tables import read_rows, write_rows
from tests.data.scene_tree import corrupt, write_tree
from tests.processes import Fork, forked


@pytest.fixture(scope="module")
def model():
    return create_model("vim_micro", pretrained=True)


@pytest.fixture(scope="module")
def some(model):
    return predict_all(CLASSIFICATION, model, embedded_test_images()[:50], 16)[0]


def made(index, label, *classes):
    return ClassPrediction(index, str(index), label, classes, tuple(0.5**n for n in range(1, len(classes) + 1)))


def test_predictions_are_the_models_answers(model, some):
    images = embedded_test_images()[:50]
    logits, labels = predict(model, images.batches(50))
    assert [one.label for one in some] == labels.tolist()
    assert [one.classes for one in some] == [tuple(best) for best in logits.topk(5).indices.tolist()]
    torch.testing.assert_close(
        torch.tensor([one.probabilities for one in some]), logits.softmax(-1).topk(5).values, atol=1e-5, rtol=1e-4
    )
    for top in (1, 5):
        assert top_share(some, top) == pytest.approx(accuracy(logits, labels, top))


def test_confusion_counts_by_hand():
    found = confusion([made(0, 1, 2, 1), made(1, 1, 1, 2), made(2, 0, 1, 0), made(3, 1, 1, 0)], 3)
    assert found.tolist() == [[0, 1, 0], [0, 2, 1], [0, 0, 0]]


def test_real_labels_count_any_of_a_pictures_own():
    names = [f"ILSVRC2012_val_{n:08d}" for n in (1, 2, 3, 4)]
    predictions = [replace(made(i, 0, 5, 6), name=f"{name}.JPEG") for i, name in enumerate(names)]
    real = dict(zip(names, ([5, 9], [6], [], [5]), strict=True))
    assert real_accuracy(predictions, real) == pytest.approx(2 / 3)  # the third has none and does not count
    with pytest.raises(ValueError, match="no picture has real labels"):
        real_accuracy([made(0, 0, 1)], real)


def test_pictures_flip_both_ways():
    before = [made(0, 1, 1), made(1, 1, 2), made(2, 1, 1), made(3, 1, 0)]
    after = [made(0, 1, 2), made(1, 1, 1), made(2, 1, 1), made(3, 1, 2)]
    found = compare(before, after)
    assert (found.pictures, found.agreement, found.broken, found.mended) == (4, 0.25, ["0"], ["1"])
    with pytest.raises(ValueError, match="different pictures: 1 are in one only, for instance 3"):
        compare(before, after[:3])
    with pytest.raises(ValueError, match="1 pictures have another label"):
        compare(before, [*after[:3], made(3, 2, 2)])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_come_back_as_written(some, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_rows(some, ClassPrediction, path)
    assert read_rows(path, ClassPrediction) == some
    assert not list(tmp_path.glob("*.partial"))


def test_other_files_are_not_predictions(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("name,label\na,1\n")
    with pytest.raises(ValueError, match=r"a\.csv does not hold predictions"):
        read_rows(path, ClassPrediction)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="does not hold predictions"):
        read_rows(tmp_path / "a.parquet", ClassPrediction)


def predict_in_small_chunks(model, tree, out):
    resumable.CHUNK = 4
    predict_files(CLASSIFICATION, model, find_images([tree]), out, batch_size=2)


def test_a_killed_prediction_resumes(tmp_path):
    tree = write_tree(tmp_path / "tree", train=40, test=20)
    corrupt(tree / "train", 3)
    model = create_model("vim_micro_patch4_56", pretrained=True)
    call = (predict_in_small_chunks, model, tree, tmp_path / "broken.parquet")
    parts = tmp_path / "broken.parquet.parts"
    with Fork(*call) as process:
        process.wait_until(lambda: process.poll() is not None or any(parts.glob("*.jsonl")))
    assert process.returncode == -signal.SIGKILL, process.stderr
    done = sorted(parts.glob("*.jsonl"))
    assert 1 <= len(done) < 15
    mark = {"rejected": {"name": "not", "reason": "predicted again"}}
    done[0].write_text(done[0].read_text() + json.dumps(mark) + "\n")
    again = forked(*call)
    assert again.returncode == 0, again.stderr
    assert predict_files(CLASSIFICATION, model, find_images([tree]), tmp_path / "whole.csv") == (57, 3)
    whole, resumed = (read_rows(tmp_path / name, ClassPrediction) for name in ("whole.csv", "broken.parquet"))
    assert [one.name for one in resumed] == [one.name for one in whole]
    assert [one.classes for one in resumed] == [one.classes for one in whole]
    with (tmp_path / "broken.parquet.rejects.csv").open(newline="") as file:
        rejects = list(csv.DictReader(file))
    assert len(rejects) == 4
    assert all("cannot be read" in row["reason"] for row in rejects if row["name"] != "not")
    assert not parts.exists()


def test_another_models_unfinished_run_is_not_mixed_in(tmp_path):
    tree = write_tree(tmp_path / "tree", train=10, test=10)
    files = find_images([tree])
    dense = create_model("vim_micro_patch4_56", pretrained=True)
    others = create_model("vim_micro_patch4_56", pretrained=True)
    with torch.no_grad():
        others.head.bias[0] += 1e-6
    interrupt(dense, files, tmp_path / "a.csv")
    for model, says in ((others, "other weights"), (prune(dense, "top"), "other pruning")):
        with pytest.raises(ValueError, match=f"holds an unfinished run .* with another model .{says}"):
            predict_files(CLASSIFICATION, model, files, tmp_path / "a.csv")
    (tree / "val" / "n00000000" / "more.png").write_bytes(b"one picture more")
    with pytest.raises(ValueError, match=r"holds an unfinished run .*20 pictures then, 21 now"):
        predict_files(CLASSIFICATION, dense, find_images([tree]), tmp_path / "a.csv")


def interrupt(model, files, out):
    """A run that ends within its second chunk."""

    def stop(count):
        stop.done += count
        if stop.done > resumable.CHUNK:
            raise KeyboardInterrupt

    stop.done = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, "CHUNK", 4)
        with pytest.raises(KeyboardInterrupt):
            predict_files(CLASSIFICATION, model, files, out, 2, on_done=stop)


def test_pictures_that_are_all_broken_are_an_error(tmp_path, model):
    tree = write_tree(tmp_path / "tree", train=10, test=10)
    for path in tree.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 20 pictures can be read"):
        predict_all(CLASSIFICATION, model, find_images([tree]), 8)
