"""Where commands write what a task found, and the drawings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from skimba.data import Pictures
from skimba.runtime.files import check_output, check_output_folder, write_atomically
from skimba.tasks import Task
from skimba.tasks.naming import file_name


def check_results(path: Path, task: Task, inputs: Sequence[Path]) -> None:
    """Raise before any work if the task could not write its results there."""
    suffixes = [suffix for suffix in task.formats if suffix]
    if path.suffix.lower() in suffixes or "" not in task.formats:
        check_output(path, suffixes, inputs)
    elif path.suffix:
        raise ValueError(f"{path} must be a folder (no suffix) or end in {' or '.join(suffixes)}, got {path.suffix!r}")
    else:
        check_output_folder(path, inputs)


def drawing_into(folder: Path, task: Task, pictures: Pictures) -> Callable[[list[Any]], None]:
    """What draws the rows of a batch: a PNG for each picture."""

    def draw(rows: list[Any]) -> None:
        for row in rows:
            drawn = task.draw(pictures.picture(row.index), row)
            write_atomically(folder / file_name(row, ".png"), partial(drawn.save, format="PNG"))

    return draw
