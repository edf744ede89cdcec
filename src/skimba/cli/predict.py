"""``skimba predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, say
from skimba.cli._models import find_model
from skimba.cli._options import Device, ModelOptions, RunOptions, Workers
from skimba.cli._pictures import find_files
from skimba.cli._progress import bar
from skimba.cli._results import check_results, drawing_into
from skimba.runtime.files import check_output, check_output_folder
from skimba.runtime.processes import local_device, world_size
from skimba.tasks import task_of
from skimba.tasks.resumable import predict_files, rejects_of


@command("predict")
def predict_command(
    model: ModelOptions,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Images, folders of images, tar shards; clips for a model of clips."),
    ],
    results: Annotated[
        Path,
        typer.Option(
            "--out", help="Where predictions go: .csv or .parquet; COCO's .json of a detector; a folder of label maps."
        ),
    ],
    drawings: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FOLDER", help="Draw the predictions on the pictures, into a folder."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Predict classes, objects or label maps of pictures, classes of clips.

    What cannot be read is listed in OUT.rejects.csv. Repeat the command to resume.
    """
    network = find_model(model.source, model.pruning, model.checkpoint, int8=model.int8).to(local_device(device))
    task = task_of(network)
    check_results(results, task, [*model.files, *paths])
    files = find_files(network, paths)
    inputs = [*model.files, *(Path(path) for path in {file.path for file in files.files})]
    check_results(results, task, inputs)
    check_output(rejects_of(results), (), inputs)
    if drawings is not None:
        check_output_folder(drawings, [*paths, results])
    with bar("predicting", -(-len(files) // world_size())) as advance:
        count, rejects = predict_files(
            task,
            network,
            files,
            results,
            min(batch_size, task.chunk),
            RunOptions(workers, device).decoders,
            advance,
            (lambda rows: None) if drawings is None else drawing_into(drawings, task, files),
        )
    say(f"{count} predictions in {results}, {rejects} rejected")
