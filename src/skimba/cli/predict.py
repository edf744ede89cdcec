"""``skimba predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, say
from skimba.cli._models import find_model, mode_of
from skimba.cli._options import Device, ModelOptions, RunOptions, Workers
from skimba.cli._progress import progress_bar
from skimba.data import find_images
from skimba.runtime.files import check_output
from skimba.runtime.processes import local_device, world_size
from skimba.tasks import task_of
from skimba.tasks.resumable import predict_files, rejects_of
from skimba.tasks.tables import FORMATS


@command("predict")
def predict_command(
    model: ModelOptions,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Images, folders of images, tar shards.")],
    table: Annotated[Path, typer.Option("--out", help="Where predictions go: .csv or .parquet.")],
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Predict the classes of pictures. Unreadable ones are listed in OUT.rejects.csv. Repeat the command to resume."""
    check_output(table, tuple(FORMATS), [*model.files, *paths])
    network = find_model(model.source, model.pruning, model.checkpoint, int8=model.int8).to(local_device(device))
    files = find_images(paths, mode_of(network))
    inputs = [*model.files, *(Path(path) for path in {file.path for file in files.files})]
    for out in (table, rejects_of(table)):
        check_output(out, (), inputs)
    with progress_bar() as progress:
        bar = progress.add_task("predicting", total=-(-len(files) // world_size()))
        count, rejects = predict_files(
            task_of(network),
            network,
            files,
            table,
            batch_size,
            RunOptions(workers, device).decoders,
            lambda done: progress.update(bar, advance=done, refresh=True),
        )
    say(f"{count} predictions in {table}, {rejects} rejected")
