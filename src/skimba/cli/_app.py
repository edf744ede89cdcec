"""What all commands share: the application, the options, how a model is found, how results and progress are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from skimba.data.pictures import Mode
from skimba.models import TokenModel
from skimba.pruning import PRESETS, prune
from skimba.runtime.processes import rank
from skimba.store import create_model
from skimba.store.publish import HUB, load_model
from skimba.training import read_recipe
from skimba.training.recipe import PRUNE_ARGUMENTS

app = typer.Typer(
    help="Token pruning for vision state space models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
T = TypeVar("T")
_WRITER = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one speaks
out, err = Console(quiet=not _WRITER), Console(stderr=True, quiet=not _WRITER)

ModelSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name, for instance vim_small_patch16_224; a recipe.toml; or a .safetensors of train or export-weights.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--prune",
        metavar="PRESET",
        help=f"Prune by a named method: {', '.join(PRESETS)}; or by a .json that skimba schedule wrote.",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(metavar="BLOCK:SHARE,…", help="Share of tokens kept after which blocks, for instance 5:0.8,10:0.8."),
]
TargetFlops = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Prune down to this share of the dense model's exact FLOPs.")
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights for a model given by name; those of the package or the hub if left out.")
]
Scenes = Annotated[
    bool, typer.Option("--scenes", help="Fashion-MNIST's items on photographs (needs skimba[scenes]), 56 pixels.")
]
Labels = Annotated[
    Path | None, typer.Option(help="Classes of a flat folder of ImageNet's pictures: a line for each, name and class.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that decode pictures; if left out none for a model on the cpu, which has all cores at work.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, or cuda (on the reference backend).")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a picture that cannot be read.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="A narrow model and a few small pictures: does everything run?")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def find_model(
    source: str,
    pruning: dict[str, Any] | None,
    checkpoint: Path | None = None,
    weights: bool = True,
    smoke_classes: int | None = None,
) -> TokenModel:
    """The model that a name, a recipe or a file of save_model means; ``pruning`` wins over what these say.

    Args:
        weights: whether trained weights matter; a file's are always there.
        smoke_classes: for a recipe: a narrow version from random weights with so many classes.
    """
    if source.startswith(HUB) or source.endswith(".safetensors"):
        if checkpoint is not None:
            raise ValueError("a model file has its own weights: give a name with --checkpoint")
        model = load_model(source)
    elif source.endswith(".toml"):
        recipe = read_recipe(source)
        if smoke_classes is not None:
            model = recipe.as_smoke().dense_model(num_classes=smoke_classes)
        else:
            model = recipe.dense_model(checkpoint=checkpoint, weights=weights)
        pruning = pruning or (None if recipe.prune is None else dict(recipe.prune))
    else:
        model = create_model(source, pretrained=weights and checkpoint is None, checkpoint=checkpoint)
    return model if pruning is None else prune(model, **pruning)


def mode_of(model: TokenModel) -> Mode:
    """How pictures are decoded for a model."""
    return "L" if model.in_chans == 1 else "RGB"


def prune_arguments(preset: str | None, keep: str | None, target_flops: float | None) -> dict[str, Any] | None:
    """Arguments of prune, or None where the command line asks for no pruning."""
    given = {"preset": preset, "keep": None if keep is None else parse_keep(keep), "target_flops": target_flops}
    wanted = {name: value for name, value in given.items() if value is not None}
    if preset is not None and preset.endswith(".json"):
        del wanted["preset"]
        wanted = {**_read_settings(Path(preset)), **wanted}
    return wanted or None


def _read_settings(path: Path) -> dict[str, Any]:
    """What ``skimba schedule`` wrote."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or (unknown := set(content) - set(PRUNE_ARGUMENTS)):
        found = f"unknown {', '.join(sorted(unknown))}" if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} must be an object with arguments of skimba.prune, got {found}")
    return content


def parse_keep(text: str) -> dict[int, float]:
    """``"5:0.8,10:0.8"`` -> ``{5: 0.8, 10: 0.8}``."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return {int(block): float(share) for block, share in pairs}
    except ValueError:
        raise ValueError(f"--keep takes BLOCK:SHARE pairs such as 5:0.8,10:0.8, got {text!r}") from None


def decoders(asked: int | None, device: str) -> int:
    """How many worker processes decode. None where the model keeps the cores busy: they would only take turns with it
    (``benchmarks/loading.py``: Vim-T evaluates at 0.90 of its own rate without workers, at 0.84 with two on two cores)."""
    if asked is not None:
        return asked
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return 0 if device == "cpu" else max((os.cpu_count() or 1) // processes, 1)


def print_json(content: object) -> None:
    """To standard output, by one process."""
    if rank() == 0:
        print(json.dumps(content, indent=2))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


def progress_bar() -> Progress:
    """With rate and remaining time, on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Its own thread would steal time from what is measured.
    return Progress(*columns, console=err, auto_refresh=False, disable=not _WRITER)


@contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[T], T]]:
    """A progress bar; what it yields advances it by one and hands its argument through."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total)

        def advance(item: T) -> T:
            progress.update(task, advance=1, refresh=True)
            return item

        yield advance
