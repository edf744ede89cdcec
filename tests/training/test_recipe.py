import json
from pathlib import Path

import pytest
import torch

from skimba.cost.flops import count_flops
from skimba.dense import upernet
from skimba.pruning import prune, read_settings
from skimba.store import save_model
from skimba.training import Recipe, read_recipe
from tests.cli.test_cli import run
from tests.data.idx_files import write_fashion_mnist
from tests.data.scene_tree import write_tree
from tests.processes import forked, skimba

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
PUBLISHED_GFLOPS = {
    "vim_tiny_top": (1.29, 0.05),  # the paper's table; its schedule counts 1.24
    "vim_small_top": (3.60, 0.04),
    "plain_mamba_l3_top": (8.44, 0.02),
    "vim_tiny_r_meeto": (1.28, 0.03),
    "vim_small_r_meeto": (3.58, 0.05),
    "vim_base_r_meeto": (13.21, 0.12),
    "vim_small_dense": (5.08, 0.01),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), train=20, test=10)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """A few items of Fashion-MNIST: scenes for detection and segmentation are made of them."""
    return write_fashion_mnist(tmp_path_factory.mktemp("items"), train=8, test=8)


FAST_DENSE = ("scenes_mask_rcnn_vim_micro", "scenes_upernet_vim_micro")


def by_speed(path):
    dense = "kind =" in path.read_text()
    return pytest.param(path, marks=[pytest.mark.slow] if dense and path.stem not in FAST_DENSE else [], id=path.stem)


@pytest.mark.parametrize("path", [by_speed(path) for path in RECIPES])
def test_every_recipe_runs_in_small(path, tree, items, tmp_path, monkeypatch, capsys):
    if "kind =" in path.read_text() or path.stem.startswith("videomamba"):
        tree = items
    grey = path.stem.startswith(("vim_micro", "plain_mamba_micro")) and "56" not in path.stem
    command = next(line for line in path.read_text().splitlines() if line.startswith("# skimba"))
    assert f"recipes/{path.name}" in command
    if command.startswith("# skimba train"):
        options = ["--out", tmp_path, "--workers", 0, "smoke=true"]
        run(monkeypatch, "train", path, "sizes.in_chans=1" if grey else "seed=1", *options, "--data", tree)
        assert (tmp_path / "weights.safetensors").exists()
    else:
        run(monkeypatch, "eval", path, "--data", tree, "--workers", 0, "--smoke", "--json")
        assert json.loads(capsys.readouterr().out)["images"] == 8


@pytest.mark.parametrize(("name", "figure"), PUBLISHED_GFLOPS.items())
def test_a_recipes_flops_are_the_published_ones(name, figure):
    recipe = read_recipe(next(path for path in RECIPES if path.stem == name))
    model = recipe.dense_model(weights=False)
    if recipe.prune:
        model = prune(model, **read_settings(recipe.prune))
    published, tolerance = figure
    assert count_flops(model, convention="published").total / 1e9 == pytest.approx(published, abs=tolerance)


def test_a_segmenter_goes_on_from_its_own_file_with_the_classes_of_the_pictures(tmp_path):
    """Else it had ADE20K's 150, which fit no file of other classes."""
    trained = upernet("vim_micro", num_classes=3)
    save_model(trained, path := tmp_path / "weights.safetensors")
    recipe = Recipe("vim_micro", kind="upernet", checkpoint=str(path))
    for classes in (3, 5):
        model = recipe.dense_model(num_classes=classes, in_chans=3)
        own = model.state_dict()
        same = {name for name, value in trained.state_dict().items() if torch.equal(value, own[name])}
        fresh = {name for name in own.keys() - same if not name.endswith("num_batches_tracked")}
        assert {name.split(".")[-2] for name in fresh} == (set() if classes == 3 else {"conv_seg"})


def test_what_is_given_wins(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('model = "vim_micro"\nepochs = 3\n[prune]\nmethod = "top"\nschedule = { 2 = 0.5 }\n')
    recipe = read_recipe(
        path, ["epochs=7", "prune.method=hold", "prune.schedule.4=0.25", "dtype=bf16", "ema_decay=0.5"]
    )
    assert (recipe.epochs, recipe.dtype, recipe.ema_decay) == (7, "bf16", 0.5)
    assert recipe.prune == {"method": "hold", "schedule": {"2": 0.5, "4": 0.25}}
    assert read_recipe(path, [("epochs", 2)]).epochs == 2
    assert read_recipe("vim_micro") == Recipe("vim_micro")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("epochs = 3", ValueError, "does not say model"),
        (
            'model = "vim_micro"\nlearning_rat = 1',
            ValueError,
            "unknown key 'learning_rat'; did you mean 'learning_rate'",
        ),
        ('model = "vim_micro"\nqqq = 1', ValueError, "unknown key 'qqq'; known: model, kind"),
        ('model = "vim_micro"\nepochs = "3"', TypeError, "epochs must be int, got '3'"),
        ('model = "vim_micro"\nepochs = true', TypeError, "epochs must be int, got True"),
        ('model = "vim_micro"\nprune = 0.5', TypeError, "prune must be table or nothing, got 0.5"),
        ('model = "vim_micro"\nmean = ["a"]', TypeError, "mean must be tuple or nothing"),
        ("model = ", ValueError, "is not TOML"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, error, says):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(error, match=says):
        read_recipe(path)


def test_overrides_must_be_key_and_value():
    with pytest.raises(ValueError, match="overrides are key=value, got 'epochs'"):
        read_recipe("vim_micro", ["epochs"])
    with pytest.raises(ValueError, match="model is not a table"):
        read_recipe("vim_micro", ["model.depth=3"])


def test_a_wrong_recipe_leaves_the_process_with_code_2(tmp_path):
    result = forked(skimba, "train", "vim_micro", "epoch=1", "--out", tmp_path)
    assert result.returncode == 2
    assert result.stderr == "skimba: unknown key 'epoch'; did you mean 'epochs'?\n"
