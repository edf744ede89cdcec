"""What ``skimba --help`` and ``skimba --version`` print, without the second that the commands' libraries take to load."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from skimba.runtime.version import VERSION

ABOUT = "Token pruning for vision state space models."
WIDTH = 80
COMMANDS = {  # the first line of each command's own help, held to it by a test
    "bench": "Time models, dense and pruned, and their floors.",
    "compare": "List the pictures whose prediction turns wrong or right from one model to another.",
    "demo": "Measure the embedded models, dense and pruned, and draw which tokens survive.",
    "doctor": "Show versions, backend, instruction set and threads, and why a backend cannot run.",
    "eval": "Measure a model, dense or pruned, on all pictures, each counted once.",
    "explore": "Open the explorer: a page on this machine that shows what pruning keeps, changes and costs.",
    "export": "Write a model, dense or pruned, as a file that runs without skimba.",
    "export-weights": "Write a model, dense or pruned, so that skimba.create_model(checkpoint=…) restores it.",
    "flops": "Count a model's multiply-adds for one image, by the published and by the exact convention.",
    "predict": "Predict classes, objects or label maps of pictures, classes of clips.",
    "schedule": "Find a schedule for a target of FLOPs or of measured speed.",
    "train": "Train a model, dense or pruned, by a recipe.",
}


def quick_answer(arguments: Sequence[str]) -> str | None:
    """What to print where the arguments ask for help or version alone; None where a command is asked for."""
    if list(arguments) == ["--version"]:
        return f"skimba {VERSION}"
    return _help() if list(arguments) == ["--help"] else None


def _help() -> str:
    options = {"--version": "Show the version and exit.", "--help": "Show this message and exit."}
    return "\n".join(
        (
            "Usage: skimba [OPTIONS] COMMAND [ARGS]...",
            f"\n  {ABOUT}",
            f"\nOptions:\n{_listed(options)}",
            f"\nCommands (skimba COMMAND --help says more):\n{_listed(COMMANDS)}",
        )
    )


def _listed(entries: dict[str, str]) -> str:
    column = max(map(len, entries)) + 4
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column)
        for name, text in entries.items()
    )
