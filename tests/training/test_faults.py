"""Trainings that meet changed pictures, foreign files, full disks and each other."""

import json
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skimba.data import Selected, embedded_test_images, find_images, read_image_folder
from skimba.runtime.locks import sole_writer
from skimba.training import Recipe, loop, train
from skimba.training.checkpoint import CHECKPOINT, WEIGHTS
from skimba.training.journal import LOG, read_log
from tests.data.scene_tree import write_tree
from tests.processes import Fork, forked

IMAGES = embedded_test_images()[:16]
RECIPE = Recipe("vim_micro", sizes={"depth": 1}, epochs=2, batch_size=8)


def stopped(folder, train_set=IMAGES, recipe=RECIPE, after=2, **options):
    """A training that was interrupted after so many of its four steps."""

    def stop(progress):
        if progress.step == after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, train_set, IMAGES[:8], folder, stop, **options)


def changed_labels():
    labels = IMAGES.labels.clone()
    labels[3] = (labels[3] + 1) % 10
    return replace(IMAGES, labels=labels)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (IMAGES[:15], "training: 16 pictures then, 15 now"),
        (Selected(IMAGES, [1, 0, *range(2, 16)]), "training: other (names|classes|files)"),
        (changed_labels(), "training: other targets among pictures 0 … 15"),
    ],
)
def test_a_training_does_not_go_on_with_other_pictures(tmp_path, now, says):
    stopped(tmp_path)
    with pytest.raises(ValueError, match=f"holds a training on other pictures .*{says}"):
        train(RECIPE, now, IMAGES[:8], tmp_path)
    assert train(RECIPE, IMAGES, IMAGES[:8], tmp_path)["images"] == 8


def hold_the_folder(folder):
    with sole_writer(folder):
        print("held")
        time.sleep(100)


def test_one_training_at_a_time_in_a_folder(tmp_path):
    with Fork(hold_the_folder, tmp_path) as other:
        other.wait_until(lambda: other.stdout == "held\n")
        with pytest.raises(OSError, match="another process is writing to"):
            train(RECIPE, IMAGES, IMAGES[:8], tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("after", [2, 3])
def test_a_log_that_is_gone_is_written_from_there_on(tmp_path, after):
    stopped(tmp_path, after=after)
    (tmp_path / LOG).unlink()
    train(RECIPE, IMAGES, IMAGES[:8], tmp_path)
    assert [line["step"] for line in read_log(tmp_path / LOG)] == [2, 4]


@pytest.mark.parametrize("line", ["{}", "[1]", "no JSON", '{"step": "2"}'])
def test_a_log_of_something_else_is_named(tmp_path, line):
    stopped(tmp_path)
    with (tmp_path / LOG).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2, is no line of a training's log; move the file away"):
        train(RECIPE, IMAGES, IMAGES[:8], tmp_path)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("recipe", [1], "is not a checkpoint of this trainer"),
        ("optimizer", 5, "is not a checkpoint of this trainer"),
        ("step", "2", "is not a checkpoint of this trainer"),
        ("step", 99, "the checkpoint is of step 99, the training has 4"),
        ("optimizer", {}, "does not fit this model and optimiser"),
        ("optimizer", {"state": {}, "param_groups": [5]}, "does not fit this model and optimiser"),
        ("model", {}, "does not fit this model and optimiser"),
        ("data", {"training": 5}, "holds a training on other pictures"),
    ],
)
def test_a_checkpoint_with_a_part_of_another_kind_is_refused(tmp_path, part, value, says):
    stopped(tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    torch.save({**state, part: value}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match=says):
        train(RECIPE, IMAGES, IMAGES[:8], tmp_path)


def test_a_smoke_training_says_how_many_pictures_it_was_measured_on(tmp_path):
    found = train(Recipe("vim_micro").as_smoke(), IMAGES, embedded_test_images()[:50], tmp_path)
    assert found["images"] == 8


def test_test_pictures_that_cannot_be_read_cost_no_epoch(tmp_path):
    """Unreadable from the first: before the first epoch. Later: after its checkpoint, so that the training can go on."""
    tree = write_tree(tmp_path / "tree", train=10, test=10)
    train_set, test_set = (read_image_folder(tree / split) for split in ("train", "val"))
    content = {file.path: Path(file.path).read_bytes() for file in test_set.files}
    recipe = Recipe("vim_micro_patch4_56", sizes={"depth": 1}, epochs=1, batch_size=5)

    def write(pictures):
        for path, one in pictures.items():
            Path(path).write_bytes(one)

    broken = {path: b"\0" * len(one) for path, one in content.items()}  # of the same size
    write(broken)
    with pytest.raises(ValueError, match="none of the test pictures can be read"):
        train(recipe, train_set, test_set, tmp_path / "a")
    assert not (tmp_path / "a" / CHECKPOINT).exists()
    write(content)
    with pytest.raises(ValueError, match="none of the 10 pictures can be read"):
        train(recipe, train_set, test_set, tmp_path / "b", lambda progress: write(broken))
    assert torch.load(tmp_path / "b" / CHECKPOINT, weights_only=True)["step"] == 2
    write(content)
    assert train(recipe, train_set, test_set, tmp_path / "b")["images"] == 10


def test_training_pictures_that_cannot_be_read_are_one_clear_error(tmp_path):
    tree = write_tree(tmp_path / "tree", train=10, test=10)
    for path in (tree / "train").rglob("*.jpg"):
        path.write_bytes(b"no picture")
    sets = [read_image_folder(tree / split) for split in ("train", "val")]
    with pytest.raises(ValueError, match="too many training pictures cannot be read, for instance"):
        train(Recipe("vim_micro_patch4_56", sizes={"depth": 1}, batch_size=5), *sets, tmp_path / "a")
    assert len(find_images([tree / "train"])) == 10


def train_on_a_disk_full_at_the_end(folder):
    def full(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        return finish(self)

    finish, loop.Loop.finish = loop.Loop.finish, full
    try:
        train(RECIPE, IMAGES, IMAGES[:8], folder)
    except OSError as error:
        print(error)


def test_a_disk_that_is_full_for_the_final_weights_costs_nothing(tmp_path):
    ran = forked(train_on_a_disk_full_at_the_end, tmp_path)
    said = ran.stdout
    assert ran.returncode == 0, ran.stderr
    assert f"cannot write {tmp_path / WEIGHTS}" in said
    assert said.count("\n") == 1
    assert not (tmp_path / WEIGHTS).exists()
    assert train(RECIPE, IMAGES, IMAGES[:8], tmp_path).keys() == {"top1", "top5", "images"}
    assert json.loads((tmp_path / "weights.json").read_text())["model"] == "vim_micro"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mixup": float("nan")}, "mixup must be a finite number, got nan"),
        ({"min_learning_rate": float("nan")}, "min_learning_rate must be a finite number"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number, got inf"),
        ({"mean": (float("nan"),)}, "mean must be a finite number"),
        ({"sizes": {"drop_path_rate": float("nan")}}, "sizes.drop_path_rate must be a finite number"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_recipes_refuse_numbers_that_are_none(settings, says):
    with pytest.raises(ValueError, match=says):
        Recipe("vim_micro", **settings)


def test_a_policy_that_timm_does_not_know_is_named_before_any_step(tmp_path):
    recipe = replace(RECIPE, augmentation="imagenet", auto_augment="foo")
    with pytest.raises(ValueError, match=r"auto_augment is a policy of timm such as .*, got 'foo'"):
        train(recipe, IMAGES, IMAGES[:8], tmp_path)
