"""``skimba export-weights``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from skimba.cli._app import command, say
from skimba.cli._models import find_model
from skimba.cli._options import ModelOptions
from skimba.runtime.files import check_output, check_regular
from skimba.store.publish import push_model, save_model


@command("export-weights")
def export_weights(
    model: ModelOptions,
    weights: Annotated[
        Path, typer.Option("--out", help="The .safetensors to write; a .json of the same name goes beside it.")
    ],
    figures: Annotated[Path | None, typer.Option(help="JSON of skimba eval to publish with it.")] = None,
    push: Annotated[str | None, typer.Option(metavar="USER/NAME", help="Also upload to this hub repository.")] = None,
) -> None:
    """Write a model, dense or pruned, so that skimba.create_model(checkpoint=…) restores it."""
    inputs = [*model.files, *([] if figures is None else [figures])]
    check_output(weights, (".safetensors",), inputs)
    check_output(weights.with_suffix(".json"), (), inputs)
    content = None if figures is None else _read(figures)
    beside = save_model(find_model(model.source, model.pruning, model.checkpoint, int8=model.int8), weights, content)
    if push is not None:
        push_model(weights, push)
    say(f"{weights} and {beside.name}" + ("" if push is None else f", pushed to {push}"))


def _read(path: Path) -> dict[str, Any]:
    check_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got {type(content).__name__}")
    return content
