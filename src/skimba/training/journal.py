"""The logs of a training: two files of JSON lines, and TensorBoard. Process 0 writes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skimba.data.loading import Batch
from skimba.runtime.files import write_text_atomically
from skimba.runtime.processes import rank

LOG, STEPS = "log.jsonl", "steps.jsonl"  # a line for each epoch; a line now and then


class Journal:
    """The logs. A resumed training removes the lines of steps that were lost, so that each step is logged once.

    Args:
        folder: of the training.
        first: the step to resume from.
        tensorboard: write ``folder/tensorboard`` too.

    Raises:
        ImportError: tensorboard is asked for and not installed.
    """

    def __init__(self, folder: Path, first: int, tensorboard: bool) -> None:
        self.folder, self.board = folder, None
        if rank() == 0:
            for log in (folder / LOG, folder / STEPS):
                # A line is written before the checkpoint; after a kill in between it is written again.
                lines = [line for line in read_log(log) if line["step"] <= first]
                write_text_atomically(log, "".join(json.dumps(line) + "\n" for line in lines))
            self.board = _board(folder, first) if tensorboard else None

    def read(self, log: str) -> list[dict[str, Any]]:
        """The lines of LOG or STEPS."""
        return read_log(self.folder / log)

    def tells_of(self, step: int) -> bool:
        """Whether LOG has a line for the epoch that ended with that step."""
        return any(line["step"] == step for line in self.read(LOG))

    def tell(self, log: str, line: Mapping[str, Any]) -> None:
        """Add a line, with its ``step``, to LOG or STEPS."""
        if rank() == 0:
            with (self.folder / log).open("a") as file:
                file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in line.items():
                for part, number in (value if isinstance(value, dict) else {"": value}).items():
                    self.board.add_scalar(f"{name}/{part}" if part else name, number, line["step"])

    def close(self) -> None:
        """Flush TensorBoard."""
        if self.board is not None:
            self.board.close()


class Pace:
    """How fast a training runs, and what share of the time it waits for pictures."""

    def __init__(self) -> None:
        self.since, self.waited, self.pictures = time.perf_counter(), 0.0, 0

    def take(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        """The next batches; the waiting time is recorded."""
        asked = time.perf_counter()
        taken = [next(batches) for _ in range(count)]
        self.waited += time.perf_counter() - asked
        self.pictures += sum(len(batch.images) for batch in taken)
        return taken

    def read(self) -> dict[str, float]:
        """Rates of this process since the last call."""
        passed = time.perf_counter() - self.since
        found = {"pictures_per_s": self.pictures / passed, "share_waiting_for_data": self.waited / passed}
        self.since, self.waited, self.pictures = time.perf_counter(), 0.0, 0
        return found


def read_log(log: Path) -> list[dict[str, Any]]:
    """All complete lines of a log; none if it does not exist.

    Raises:
        ValueError: a line that a training did not write.
    """
    if not log.exists():
        return []
    found = []
    for number, line in enumerate(log.read_text().splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            continue  # a kill left it half-written
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("step"), int):
            raise ValueError(f"{log}, line {number}, is no line of a training's log; move the file away to go on")
        found.append(content)
    return found


def _board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("this needs tensorboard: pip install 'skimba[tensorboard]'") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first)
