"""What an import loads, and what it does not: seconds are saved by modules that stay out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import skimba
from skimba.cli._commands import app
from skimba.cli._help import COMMANDS

SLOW = ("timm", "torchvision", "huggingface_hub", "matplotlib", "rich", "typer", "safetensors", "skimage", "pyarrow")


def loaded_by(code, *arguments):
    """Names of the top-level modules that a fresh interpreter has after some code, and what the code printed."""
    tail = "\nimport sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True)
    *printed, modules = run.stdout.splitlines()
    return set(json.loads(modules)), "\n".join(printed)


@pytest.mark.parametrize("code", ["import skimba", "import torch, skimba", "import skimba, torch", "import skimba.ops"])
def test_an_import_loads_no_slow_library(code):
    modules, _ = loaded_by(code)
    assert not modules & set(SLOW)
    assert ("torch" in modules) == ("torch" in code or "ops" in code)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing(option):
    modules, printed = loaded_by("from skimba.cli import main; main()", option)
    assert not modules & {"torch", "numpy", *SLOW}
    assert printed.startswith("Usage: skimba" if option == "--help" else f"skimba {skimba.__version__}")


def test_the_quick_help_is_that_of_the_commands():
    own = {name: command.get_short_help_str(1000) for name, command in get_command(app).commands.items()}
    assert own == COMMANDS


@pytest.mark.parametrize(
    "code", ["import skimba, timm", "import timm, skimba", "import skimba; from timm import data; import timm"]
)
def test_timm_knows_the_models_in_whatever_order(code):
    loaded_by(f"{code}; assert timm.is_model('vim_micro'); timm.create_model('vim_micro', depth=1)")


def test_torch_knows_the_operators_in_whatever_order():
    for code in ("import skimba, torch", "import torch, skimba"):
        loaded_by(f"{code}; torch.ops.skimba.selective_scan")


def test_a_library_that_is_waited_for_keeps_its_loader():
    code = "import skimba, timm, torch, inspect; from importlib import resources; "
    loaded_by(
        code + "assert type(timm.__loader__).__module__.startswith(('importlib', '_frozen_importlib')); "
        "assert timm.__spec__.loader is timm.__loader__; inspect.getsource(timm); resources.files('timm')"
    )


def test_every_public_name_is_there():
    for name in skimba.__all__:
        assert getattr(skimba, name) is not None
    assert set(skimba.__all__) <= set(dir(skimba))
    assert skimba.data.embedded_test_images is not None
    with pytest.raises(AttributeError, match="module 'skimba' has no attribute 'pruned'"):
        skimba.pruned  # noqa: B018


def test_the_version_is_the_packages():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{skimba.__version__}"' in text
