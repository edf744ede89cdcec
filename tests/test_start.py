"""What an import loads, and what it does not: seconds are saved by modules that stay out."""

import functools
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


TAIL = """
import sys, json
modules = sorted({name.split('.')[0] for name in sys.modules})
knows = "torch" in modules and hasattr(sys.modules["torch"].ops.skimba, "selective_scan")
print(json.dumps([modules, knows]))
"""


@functools.cache
def loaded_by(code, *arguments):
    """Of a fresh interpreter: names of its top-level modules after some code; what the code printed; whether torch has our
    operators then.
    """
    command = [sys.executable, "-c", f"{code}\n{TAIL}", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    *printed, last = run.stdout.splitlines()
    modules, knows = json.loads(last)
    return set(modules), "\n".join(printed), knows


TORCH = ("import torch, skimba", "import skimba, torch")


@pytest.mark.parametrize("code", ["import skimba", *TORCH, "import skimba.ops"])
def test_an_import_loads_no_slow_library(code):
    modules, *_ = loaded_by(code)
    assert not modules & set(SLOW)
    assert ("torch" in modules) == ("torch" in code or "ops" in code)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing(option):
    modules, printed, _ = loaded_by("from skimba.cli import main; main()", option)
    assert not modules & {"torch", "numpy", *SLOW}
    assert printed.startswith("Usage: skimba" if option == "--help" else f"skimba {skimba.__version__}")


def test_the_quick_help_is_that_of_the_commands():
    own = {name: command.get_short_help_str(1000) for name, command in get_command(app).commands.items()}
    assert own == COMMANDS


@pytest.mark.parametrize(
    "code", ["import skimba, timm", "import timm, skimba", "import skimba; from timm import data; import timm"]
)
def test_timm_knows_the_models_in_whatever_order_and_keeps_its_loader(code):
    loaded_by(
        f"{code}; assert timm.is_model('vim_micro'); timm.create_model('vim_micro', depth=1)\n"
        "import inspect; from importlib import resources\n"
        "assert type(timm.__loader__).__module__.startswith(('importlib', '_frozen_importlib')); "
        "assert timm.__spec__.loader is timm.__loader__; inspect.getsource(timm); resources.files('timm')"
    )


def test_torch_knows_the_operators_in_whatever_order():
    assert all(loaded_by(code)[2] for code in TORCH)


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
