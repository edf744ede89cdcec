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

SLOW = (
    "timm",
    "torchvision",
    "triton",
    "huggingface_hub",
    "matplotlib",
    "rich",
    "typer",
    "safetensors",
    "skimage",
    "pyarrow",
)


def loaded_by(code, *arguments, after=""):
    """Names of the top-level modules that a fresh interpreter has after some code, and what the code printed.

    ``after``: code that runs when they are listed.
    """
    tail = f"\nimport sys, json; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))\n{after}"
    run = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True)
    *printed, modules = run.stdout.splitlines()
    return set(json.loads(modules)), "\n".join(printed)


@pytest.mark.parametrize("code", ["import skimba", "import torch, skimba", "import skimba, torch", "import skimba.ops"])
def test_an_import_loads_no_slow_library(code):
    with_torch = "torch" in code or "ops" in code
    # In the same interpreter, when its modules are listed: whatever the order, torch knows the operators.
    modules, _ = loaded_by(code, after="import torch; torch.ops.skimba.selective_scan" if with_torch else "")
    assert not modules & set(SLOW)
    assert ("torch" in modules) == with_torch


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing(option):
    modules, printed = loaded_by("from skimba.cli import main; main()", option)
    assert not modules & {"torch", "numpy", *SLOW}
    assert printed.startswith("Usage: skimba" if option == "--help" else f"skimba {skimba.__version__}")


def test_the_quick_help_is_that_of_the_commands():
    own = {name: command.get_short_help_str(1000) for name, command in get_command(app).commands.items()}
    assert own == COMMANDS


KNOWN = "; assert timm.is_model('vim_micro'); timm.create_model('vim_micro', depth=1)"


def test_timm_knows_the_models_and_keeps_its_loader():
    own = (
        "; import inspect; from importlib import resources; "
        "assert type(timm.__loader__).__module__.startswith(('importlib', '_frozen_importlib')); "
        "assert timm.__spec__.loader is timm.__loader__; inspect.getsource(timm); resources.files('timm')"
    )
    loaded_by("import skimba, timm" + KNOWN + own)


def test_timm_knows_the_models_in_whatever_order():
    """Each order in a fork of one interpreter that has torch, which takes most of the time, and neither skimba nor timm."""
    orders = ("import timm, skimba", "import skimba; from timm import data; import timm")
    codes = [code + KNOWN for code in orders]
    loaded_by(
        "import os, sys, torch, torchvision, traceback\n"
        f"for code in {codes}:\n"
        "    assert not sys.modules.keys() & {'skimba', 'timm'}\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            exec(code)\n"
        "        except BaseException:\n"
        "            traceback.print_exc()\n"
        "            os._exit(1)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0, code"
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
