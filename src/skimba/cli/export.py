"""``skimba export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, say
from skimba.cli._models import find_model
from skimba.cli._options import ModelOptions
from skimba.export.writing import FORMATS, export
from skimba.runtime.files import check_output


@command("export")
def export_model(
    model: ModelOptions,
    path: Annotated[Path, typer.Option("--out", help=f"The file to write: {' or '.join(FORMATS)}.")],
    batch: Annotated[int | None, typer.Option(help="Number of images of every call; any if left out.")] = None,
    opset: Annotated[int | None, typer.Option(help="Of ONNX; 18 if left out.")] = None,
) -> None:
    """Write a model, dense or pruned, as a file that runs without skimba."""
    check_output(path, tuple(FORMATS), model.files)
    export(find_model(model.source, model.pruning, model.checkpoint, int8=model.int8), path, batch=batch, opset=opset)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
