import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from skimba.data import embedded_test_images
from skimba.training import Recipe, train
from skimba.training.checkpoint import CHECKPOINT, LOG, WEIGHTS
from tests.data.idx_files import write_fashion_mnist

EPOCHS = 3


def command(data, out):
    options = ["--data", data, "--out", out, "--epochs", EPOCHS, "--batch-size", 16]
    return [sys.executable, "-m", "skimba", "train", "vim_micro", *map(str, options)]


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_fashion_mnist(data)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(data, tmp_path / "whole"), check=True, env=environment, capture_output=True)
    broken, kills, seen = tmp_path / "broken", 0, 0.0
    for _ in range(2 * EPOCHS):
        process = subprocess.Popen(
            command(data, broken), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            path = broken / CHECKPOINT
            if path.exists() and path.stat().st_mtime > seen and kills < EPOCHS - 1:
                seen = path.stat().st_mtime
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            time.sleep(0.01)
        if process.returncode == 0:
            break
    assert kills == EPOCHS - 1
    whole, resumed = load_file(tmp_path / "whole" / WEIGHTS), load_file(broken / WEIGHTS)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (broken / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()
    assert [json.loads(line)["epoch"] for line in (broken / LOG).read_text().splitlines()] == [1, 2, 3]


def test_it_learns(tmp_path):
    images = embedded_test_images()[:32]
    losses = []
    recipe = Recipe("vim_micro", epochs=20, batch_size=16, label_smoothing=0.0)
    train(recipe, images, images, tmp_path, lambda p: losses.append(p.loss))
    assert len(losses) == 40
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_a_pruned_model_is_fine_tuned_from_its_weights_with_the_dense_one_as_teacher(tmp_path):
    images = embedded_test_images()[:64]
    settings = {"prune": {"preset": "hold", "keep": {2: 0.5, 4: 0.5, 6: 0.5}}, "pretrained": True, "teacher": "dense"}
    losses = {}
    for distillation in (0.0, 100.0):
        recipe = Recipe("vim_micro", epochs=1, batch_size=64, distillation=distillation, **settings)
        seen = []
        train(recipe, images, images, tmp_path / str(distillation), lambda p, seen=seen: seen.append(p.loss))
        losses[distillation] = seen[0]
    assert losses[0.0] < 2, "it starts from the packaged weights"
    assert losses[100.0] > losses[0.0] + 1, "the pruned model differs from its teacher"


def test_a_teacher_of_itself_adds_nothing_at_first(tmp_path):
    images = embedded_test_images()[:16]
    losses = []
    for teacher in (None, "dense"):
        recipe = Recipe("vim_micro", epochs=1, batch_size=16, pretrained=True, teacher=teacher)
        train(recipe, images, images, tmp_path / str(teacher), lambda p: losses.append(p.loss))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_bfloat16_training_follows_float32(tmp_path):
    images = embedded_test_images()[:16]
    losses = {}
    for dtype in ("fp32", "bf16"):
        seen = losses[dtype] = []
        recipe = Recipe("vim_micro", epochs=4, batch_size=16, dtype=dtype)
        train(recipe, images, images, tmp_path / dtype, lambda p, seen=seen: seen.append(p.loss))
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    images = embedded_test_images()[:4]
    train(Recipe("vim_micro", epochs=1, batch_size=4), images, images, tmp_path)
    with pytest.raises(ValueError, match=r"epochs: 1 there, 2 asked for"):
        train(Recipe("vim_micro", epochs=2, batch_size=4), images, images, tmp_path)


def test_a_foreign_checkpoint_in_the_folder_is_refused(tmp_path):
    images = embedded_test_images()[:4]
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt"):
        train(Recipe("vim_micro", epochs=1, batch_size=4), images, images, tmp_path)
    torch.save({"model": {}}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="not a checkpoint of this trainer"):
        train(Recipe("vim_micro", epochs=1, batch_size=4), images, images, tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, got -1.0"),
        ({"warmup_share": 1.0}, r"warmup_share must be in \[0, 1\)"),
        ({"weight_decay": -0.1}, "must not be negative"),
        ({"dtype": "fp8"}, "dtype must be one of fp32, bf16, got 'fp8'"),
        ({"teacher": "big", "pretrained": True}, "teacher must be 'dense' or None, got 'big'"),
        ({"teacher": "dense"}, "pretrained=True"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative"),
        ({"crop_share": 1.5}, "crop_share must be in"),
        ({"augmentation": "more"}, "augmentation must be one of shift, imagenet"),
        ({"pretrained": True, "checkpoint": "x"}, "not both"),
        ({"prune": {"presett": "hold"}}, r"unknown key 'prune.presett'; did you mean 'prune.preset'"),
    ],
)
def test_bad_recipes_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Recipe("vim_micro", **settings)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    images = embedded_test_images()[:4]
    with pytest.raises(ValueError, match="more than the 4 training images"):
        train(Recipe("vim_micro", batch_size=5), images, images, tmp_path)
