"""``skimba train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, say, warn, warn_of
from skimba.cli._options import DataOptions, RunOptions
from skimba.cli._pictures import open_split
from skimba.cli._progress import progress_bar
from skimba.data import DEBIAN_FOLDER, Pictures
from skimba.training import Progress, Recipe, read_recipe, train
from skimba.training.checkpoint import CHECKPOINT


@command("train")
def train_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe.toml, or a model's name for the plain recipe.")
    ],
    pictures: DataOptions,
    how: RunOptions,
    folder: Annotated[Path, typer.Option("--out", help="Where checkpoints, logs and weights go.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]…", help="Settings of the recipe, for instance epochs=3 prune.method=top smoke=true."
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard too.")] = False,
) -> None:
    """Train a model, dense or pruned, by a recipe. Repeat the command to resume after an interruption.

    Without --data: Fashion-MNIST where Debian's package puts it. Under torchrun the batch is shared by the processes.
    """
    wanted = read_recipe(recipe, settings or [])
    train_set, test_set = _open(wanted, pictures)
    if (folder / CHECKPOINT).exists():
        warn(f"resuming the training in {folder}")
    with progress_bar() as bar:
        task = bar.add_task("training", total=None)

        def show(now: Progress) -> None:
            bar.update(task, completed=now.step, total=now.steps, description=f"loss {now.loss:.3f}", refresh=True)

        found = train(
            wanted,
            train_set,
            test_set,
            folder,
            show,
            workers=how.decoders,
            device=how.device,
            strict=how.strict,
            tensorboard=tensorboard,
            on_rejected=warn_of,
        )
    figures = ", ".join(f"{name} {value:.2%}" for name, value in found.items() if isinstance(value, float))
    say(f"{figures} of {found['images']} test images; weights in {folder}")


def _open(recipe: Recipe, given: DataOptions) -> tuple[Pictures, Pictures]:
    """The training and the test set."""
    probe = recipe.dense_model(weights=False)  # tells what it takes, before anything is read
    known = probe.num_classes if recipe.has_head or "num_classes" in (recipe.sizes or {}) else None
    folder = given.data or DEBIAN_FOLDER
    return open_split(probe, given, "train", folder, known), open_split(probe, given, "test", folder, known)
