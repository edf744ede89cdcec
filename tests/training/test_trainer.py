import itertools
import json
import os
import resource
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from skimba.data import ImageFiles, embedded_test_images, read_image_folder
from skimba.models.evaluation import accuracy, predict
from skimba.pruning import prune
from skimba.store import create_model
from skimba.training import Recipe, loop, train
from skimba.training.checkpoint import CHECKPOINT, WEIGHTS
from skimba.training.journal import LOG, STEPS, read_log
from tests.data.idx_files import write_fashion_mnist
from tests.data.scene_tree import corrupt, write_tree
from tests.processes import Fork, forked, skimba

EPOCHS = 3


def train_items(data, out):
    options = ["sizes.depth=2", "--data", data, "--out", out, f"epochs={EPOCHS}", "batch_size=16"]
    skimba("train", "vim_micro", *options)


def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_fashion_mnist(data)
    assert forked(train_items, data, tmp_path / "whole").returncode == 0
    broken, seen = tmp_path / "broken", 0.0

    def new_checkpoint():
        path = broken / CHECKPOINT
        return process.poll() is not None or (path.exists() and path.stat().st_mtime > seen)

    for _ in range(EPOCHS - 1):
        with Fork(train_items, data, broken) as process:
            process.wait_until(new_checkpoint)
            assert process.poll() is None, process.stderr
        assert process.returncode == -signal.SIGKILL
        seen = (broken / CHECKPOINT).stat().st_mtime
    assert forked(train_items, data, broken).returncode == 0
    whole, resumed = load_file(tmp_path / "whole" / WEIGHTS), load_file(broken / WEIGHTS)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (broken / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()
    assert [json.loads(line)["epoch"] for line in (broken / LOG).read_text().splitlines()] == [1, 2, 3]


def test_it_learns(tmp_path):
    images = embedded_test_images()[:16]
    losses = []
    recipe = Recipe("vim_micro", sizes={"depth": 2}, epochs=20, batch_size=8, label_smoothing=0.0)
    train(recipe, images, images, tmp_path, lambda p: losses.append(p.loss))
    assert len(losses) == 40
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_a_pruned_model_is_fine_tuned_from_its_weights_with_the_dense_one_as_teacher(tmp_path):
    images = embedded_test_images()[:64]
    settings = {
        "prune": {"method": "hold", "schedule": {2: 0.5, 4: 0.5, 6: 0.5}},
        "pretrained": True,
        "teacher": "dense",
    }
    losses = {}
    for distillation in (0.0, 100.0):
        recipe = Recipe("vim_micro", epochs=1, batch_size=64, distillation=distillation, **settings)
        seen = []
        train(recipe, images, images, tmp_path / str(distillation), lambda p, seen=seen: seen.append(p.loss))
        losses[distillation] = seen[0]
    assert losses[0.0] < 2, "it starts from the packaged weights"
    assert losses[100.0] > losses[0.0] + 1, "the pruned model differs from its teacher"


def test_fine_tuning_recovers_what_pruning_lost(tmp_path):
    images = embedded_test_images()
    train_set, test_set = images[:200], images[800:]
    pruned = prune(create_model("vim_micro", pretrained=True), "condensed", {2: 0.5, 4: 0.5, 6: 0.5})
    before = accuracy(*predict(pruned, test_set.batches(100)))
    settings = {"prune": pruned.reducer.to_dict(), "pretrained": True, "teacher": "dense", "dtype": "bf16"}
    recipe = Recipe("vim_micro", epochs=1, batch_size=20, learning_rate=1e-3, **settings)
    after = train(recipe, train_set, test_set, tmp_path)["top1"]
    assert before < 0.55
    assert after > before + 0.1


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


def weights_after(folder, images, **settings):
    recipe = Recipe("vim_micro", sizes={"depth": 2}, epochs=1, batch_size=32, **settings)
    train(recipe, images, images[:8], folder)
    return load_file(folder / WEIGHTS)


def test_micro_batches_are_exact(tmp_path):
    images = embedded_test_images()[:64]
    whole = weights_after(tmp_path / "whole", images)
    parts = weights_after(tmp_path / "parts", images, micro_batch_size=8)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=2e-5, rtol=1e-4, msg=name)
    other = weights_after(tmp_path / "other", images, seed=1)
    assert any((other[name] - tensor).abs().max() > 1e-3 for name, tensor in whole.items())


def test_a_training_may_resume_with_other_micro_batches(tmp_path):
    images = embedded_test_images()[:64]
    whole = weights_after(tmp_path, images)
    (tmp_path / WEIGHTS).unlink()
    again = weights_after(tmp_path, images, micro_batch_size=8)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_the_moving_average_is_what_is_written(tmp_path):
    images = embedded_test_images()[:64]
    last = weights_after(tmp_path / "last", images)
    average = weights_after(tmp_path / "average", images, ema_decay=0.5)
    state = torch.load(tmp_path / "average" / CHECKPOINT, weights_only=True)
    for name, tensor in last.items():
        torch.testing.assert_close(state["model"][name], tensor)
        torch.testing.assert_close(state["ema"][name], average[name])
    assert any((average[name] - tensor).abs().max() > 1e-4 for name, tensor in last.items())
    # Two steps from w0: half of the last and a quarter of the first step's; so all lies between.
    first = load_file_of_start(images)
    head = "head.weight"
    low, high = torch.minimum(first[head], last[head]), torch.maximum(first[head], last[head])
    inside = (average[head] >= low - 2e-3) & (average[head] <= high + 2e-3)
    assert inside.float().mean() > 0.95


def load_file_of_start(images):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_model("vim_micro", depth=2, in_chans=1, num_classes=10).state_dict()


def test_imagenets_augmentation_with_mixup_runs_and_resumes_exactly(tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "tree", train=40, test=10)
    corrupt(tree / "train", 3)
    sets = [read_image_folder(tree / split) for split in ("train", "val")]
    recipe = Recipe(
        "vim_micro_patch4_56",
        sizes={"depth": 2, "drop_path_rate": 0.2},
        epochs=2,
        batch_size=8,
        micro_batch_size=4,
        augmentation="imagenet",
        mixup=0.8,
        cutmix=1.0,
        repeats=3,
        ema_decay=0.9,
    )
    rejected = []
    train(recipe, *sets, tmp_path / "whole", workers=1, on_rejected=rejected.extend)
    assert 0 < len({one.name for one in rejected}) <= 3
    monkeypatch.setattr("skimba.training.loop.STEPS_PER_CHECKPOINT", 3)

    def stop(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, *sets, tmp_path / "broken", stop)
    train(recipe, *sets, tmp_path / "broken")
    whole, resumed = load_file(tmp_path / "whole" / WEIGHTS), load_file(tmp_path / "broken" / WEIGHTS)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_steps_are_logged_by_layer_and_shown_on_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr("skimba.training.loop.STEPS_PER_LINE", 1)
    images = embedded_test_images()[:64]
    recipe = Recipe("vim_micro", sizes={"depth": 2}, epochs=1, batch_size=32, clip_norm=0.0)
    train(recipe, images, images[:8], tmp_path, tensorboard=True)
    lines = read_log(tmp_path / STEPS)
    assert [line["step"] for line in lines] == [1, 2]
    assert {"layers.0", "layers.1", "head", "pos_embed"} <= lines[0]["gradient_norms"].keys()
    assert lines[0]["gradient_norm"] > 0
    assert 0 <= lines[0]["share_waiting_for_data"] < 1
    assert list((tmp_path / "tensorboard").glob("events*"))


SMALL = Recipe("vim_micro", sizes={"depth": 2}, epochs=1, batch_size=16)


def train_small(folder, on_step=lambda progress: None):
    """A training with a checkpoint after each of its four steps."""
    loop.STEPS_PER_CHECKPOINT = 1
    images = embedded_test_images()[:64]
    train(SMALL, images, images[:8], folder, on_step)


def killed_while_writing(folder, at):
    """The same, killed when half of a write is done, counted from 1."""
    save, writes = torch.save, itertools.count(1)

    def half(content, path):
        save(content, path)
        if next(writes) == at:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half
    train_small(folder)


def test_a_kill_while_a_checkpoint_is_written_loses_nothing(tmp_path):
    for at in (2, 1):  # half of the second write, then half of the first after the restart
        assert forked(killed_while_writing, tmp_path / "broken", at).returncode == -signal.SIGKILL
        assert torch.load(tmp_path / "broken" / CHECKPOINT, weights_only=True)["step"] == 1
    for folder in (tmp_path / "broken", tmp_path / "whole"):
        assert forked(train_small, folder).returncode == 0
    whole, resumed = load_file(tmp_path / "whole" / WEIGHTS), load_file(tmp_path / "broken" / WEIGHTS)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def train_on_a_full_disk(folder):
    def fill(progress):
        if progress.step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # a write beyond fails as on a full disk

    try:
        train_small(folder, fill)
    except OSError as error:
        print(error)


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(tmp_path):
    result = forked(train_on_a_full_disk, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"cannot write {tmp_path / CHECKPOINT}" in result.stdout
    assert "what was there before is intact" in result.stdout
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 1
    assert not list(tmp_path.glob("*.partial"))


def test_a_nan_loss_says_what_to_check(tmp_path):
    images = embedded_test_images()[:16]
    recipe = Recipe("vim_micro", sizes={"depth": 2}, epochs=9, batch_size=16, learning_rate=1e30, clip_norm=0.0)
    with pytest.raises(ValueError, match=r"loss (nan|inf) at step \d+: .*lower learning_rate \(now 1e\+30\)"):
        train(recipe, images, images, tmp_path)
    recipe = Recipe("vim_micro", sizes={"depth": 2}, batch_size=16, std=(1e-42,))
    with pytest.raises(ValueError, match="check mean and std"):
        train(recipe, images, images, tmp_path / "b")


def test_pictures_that_do_not_fit_are_refused_before_the_first_epoch(tmp_path):
    grey = embedded_test_images()[:8]
    tree = write_tree(tmp_path / "tree", train=10, test=10)
    colour = read_image_folder(tree / "train")
    few = replace(grey, classes=grey.classes[:9], labels=grey.labels.clamp(max=8))
    unlabelled = ImageFiles([file._replace(label=-1) for file in colour.files], colour.classes)
    cases = [
        (Recipe("vim_micro", batch_size=4, pretrained=True), few, few, "9 classes, the model 10; sizes.num_classes=9"),
        (Recipe("vim_micro", batch_size=4), grey, few, "training pictures have 10 classes, test pictures 9"),
        (Recipe("vim_micro", batch_size=4, pretrained=True), colour, colour, "have 3 channels, the model takes 1"),
        (Recipe("vim_micro_patch4_56", batch_size=4), unlabelled, colour, "10 pictures have no class of 0 … 9"),
        (Recipe("vim_micro", batch_size=4, micro_batch_size=3), grey, grey, "multiple of micro_batch_size, got 3"),
        (Recipe("vim_micro", batch_size=3, mixup=0.5), grey, grey, "even number of pictures"),
    ]
    for number, (recipe, train_set, test_set, says) in enumerate(cases):
        with pytest.raises(ValueError, match=says):
            train(recipe, train_set, test_set, tmp_path / str(number))


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("skimba.training.plan.world_size", lambda: 2)
    images = embedded_test_images()[:30]
    with pytest.raises(ValueError, match="batch_size 15 cannot be shared by 2 processes"):
        train(Recipe("vim_micro", batch_size=15), images, images, tmp_path)


def test_another_models_checkpoint_is_refused(tmp_path):
    images = embedded_test_images()[:4]
    train(Recipe("vim_micro", sizes={"depth": 2}, epochs=1, batch_size=4), images, images, tmp_path)
    with pytest.raises(ValueError, match="model: vim_micro there, plain_mamba_micro asked for"):
        train(Recipe("plain_mamba_micro", sizes={"depth": 2}, epochs=1, batch_size=4), images, images, tmp_path)


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
        ({"prune": {"methodd": "hold"}}, r"unknown key 'prune.methodd'; did you mean 'prune.method'"),
    ],
)
def test_bad_recipes_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Recipe("vim_micro", **settings)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    images = embedded_test_images()[:4]
    with pytest.raises(ValueError, match="more than the 4 training images"):
        train(Recipe("vim_micro", batch_size=5), images, images, tmp_path)
