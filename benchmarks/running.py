"""What the studies share: runs that are named by their settings, done once, and written as lines of JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from skimba.ops import native
from skimba.pruning import OutOfReachError

Part = tuple[Callable[[], Iterator[Any]], Callable[[Any], dict[str, Any]]]  # its runs, and what does one
NUMBERS: dict[str, type] = {
    "reduction": float,
    "seed": int,
    "images": int,
}  # of the fields of a run; all others are text
WORDS = {"model": "only these models, for a process on each core"}


def read_lines(results: Path) -> list[dict[str, Any]]:
    """All finished runs."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def do_parts(
    parts: Mapping[str, Part],
    kind: type[Any],
    results: Path,
    read: Callable[[], list[dict[str, Any]]],
    description: str | None,
    given: list[str] | None,
) -> None:
    """Do the runs that the command line asks for and that are not among the results yet.

    Args:
        kind: the dataclass of a run; its fields but ``part`` are options that choose among the runs.
        read: the finished runs, by the names that things have now.
        given: the command line; None: the process's own.
    """
    names = [field.name for field in fields(kind) if field.name != "part"]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=parts, help="what to run; all if left out")
    for name in names:
        says = WORDS.get(name, f"only these {name}s")
        parser.add_argument(f"--{name}", action="append", type=NUMBERS.get(name, str), help=says)
    arguments = vars(parser.parse_args(given))
    native.keep_freed_memory()
    for part in arguments["part"] or parts:
        runs, do = parts[part]
        for run in runs():
            settings = asdict(run)
            if any(arguments[name] and settings[name] not in arguments[name] for name in names):
                continue
            if settings in [{name: line[name] for name in settings} for line in read()]:
                continue
            try:
                found = do(run)
            except OutOfReachError as error:
                found = {"out_of_reach": str(error)}
            line = json.dumps({**settings, **found}, ensure_ascii=False)
            with results.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)
