"""``skimba compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, print_json, say
from skimba.cli._options import Json
from skimba.tasks import ClassPrediction
from skimba.tasks.comparison import compare
from skimba.tasks.tables import read_rows

SHOWN = 20  # names in a list on the screen


@command("compare")
def compare_command(
    before: Annotated[Path, typer.Argument(help="Predictions of one model, for instance the dense one.")],
    after: Annotated[Path, typer.Argument(help="Predictions of another model for the same pictures.")],
    json_output: Json = False,
) -> None:
    """List the pictures whose prediction turns wrong or right from one model to another."""
    found = compare(read_rows(before, ClassPrediction), read_rows(after, ClassPrediction))
    if json_output:
        print_json(asdict(found))
        return
    say(f"{found.pictures} pictures, the same class for {found.agreement:.2%}")
    for what, names in (("right to wrong", found.broken), ("wrong to right", found.mended)):
        listed = " ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
        say(f"{what}: {len(names)}  {listed}")
