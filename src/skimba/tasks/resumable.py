"""Predictions for any number of pictures, resumably and in several processes: what ``skimba predict`` does.

The pictures are cut into chunks. A finished chunk is one file in ``OUT.parts``, written atomically; process r of n does every
n-th chunk that is not there yet. The last step joins them. So a run killed at any moment loses one chunk at most, and may resume
with another number of processes. A note beside the chunks records what they belong to and, at the end, that they were joined:
from then on they only need to be removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skimba.data import changes, fingerprint
from skimba.data.loading import Rejected, Wanted
from skimba.data.pictures import Pictures
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.models import TokenModel
from skimba.runtime.files import write_text_atomically
from skimba.runtime.locks import sole_writer
from skimba.runtime.processes import by_writer, gather, rank, world_size
from skimba.tasks.base import Task
from skimba.tasks.running import run
from skimba.tasks.tables import from_record, record_of, write_rows

CHUNK = 512  # pictures: the most that an interruption may cost in any task
NOTE = "what.json"
ADDRESS = re.compile(" at 0x[0-9a-f]+")  # of a user-defined function, which differs in every process


@dataclass(frozen=True)
class Run:
    """What is predicted, by what, and how.

    Attributes:
        workers: processes that decode.
        strict: stop at a picture that cannot be read.
        on_rows: called with the rows of every batch that is predicted, in the process that did, before they are saved.
        on_done: called with the number of pictures of this process that a step finished.
    """

    task: Task
    model: nn.Module
    pictures: Pictures
    batch_size: int = 32
    workers: int = 0
    strict: bool = False
    on_rows: Callable[[list[Any]], object] = lambda rows: None
    on_done: Callable[[int], object] = lambda count: None

    @property
    def chunk(self) -> int:
        """Pictures between two saves."""
        return min(CHUNK, self.task.chunk)

    def batches(self, start: int) -> list[list[Wanted]]:
        """Of the chunk that begins there."""
        chunk = range(start, min(start + self.chunk, len(self.pictures)))
        size = self.batch_size
        return [[Wanted(i) for i in chunk[first : first + size]] for first in range(0, len(chunk), size)]


def predict_files(
    task: Task,
    model: nn.Module,
    pictures: Pictures,
    out: str | Path,
    batch_size: int = 32,
    workers: int = 0,
    on_done: Callable[[int], object] = lambda count: None,
    on_rows: Callable[[list[Any]], object] = lambda rows: None,
) -> tuple[int, int]:
    """Predict all pictures into ``out`` (one of the task's formats); those that cannot be read go to ``OUT.rejects.csv``.

    Args:
        on_done, on_rows: see :class:`Run`.

    Returns:
        How many pictures were predicted and how many rejected.

    Raises:
        ValueError: the parts there belong to other pictures or another model.
        OSError: a file cannot be written.
    """
    job = Run(task, model, pictures, batch_size, workers, on_rows=on_rows, on_done=on_done)
    with _parts(job, out) as (parts, joined):
        if joined is None:
            rows, rejected = _rows(parts, job)
            joined = len(rows), len(rejected)
    return joined


def predict_rows(job: Run, out: str | Path) -> tuple[list[Any], list[Rejected]]:
    """As :func:`predict_files`, but the rows and the rejected pictures, in every process: for what is measured on them."""
    with _parts(job, out) as (parts, _):
        return _rows(parts, job)


@contextmanager
def _parts(job: Run, out: str | Path) -> Iterator[tuple[Parts, tuple[int, int] | None]]:
    """The parts of a run, locked, and what :meth:`Parts.begin` said; they are removed at the end if all went well."""
    parts = Parts(Path(out))
    with ExitStack() as held:
        by_writer(lambda: held.enter_context(sole_writer(parts.folder)))
        yield (
            parts,
            by_writer(
                lambda: parts.begin({"model": digest_of_model(job.model), "pictures": fingerprint(job.pictures)})
            ),
        )
        by_writer(parts.remove)


def _rows(parts: Parts, job: Run) -> tuple[list[Any], list[Rejected]]:
    """Predict what is missing, and write the outputs."""
    starts = range(0, len(job.pictures), job.chunk)
    mine = starts[rank() :: world_size()]
    missing = [start for start in mine if not parts.chunk(start).exists()]
    for start in set(mine) - set(missing):
        job.on_done(min(job.chunk, len(job.pictures) - start))
    _fill(parts, job, missing)
    gather(None)  # all chunks are there
    return by_writer(lambda: parts.join(job, starts))


class Parts:
    """The results of an unfinished run, in a folder beside its output."""

    def __init__(self, out: Path) -> None:
        self.out, self.rejects = out, rejects_of(out)
        self.folder = out.with_name(out.name + ".parts")

    def chunk(self, start: int) -> Path:
        return self.folder / f"{start:09d}.jsonl"

    def begin(self, belongs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Start or resume a run of that model on those pictures.

        Returns:
            If a killed run had already finished: how many pictures it predicted and rejected.
        """
        note = self._note()
        if note is None:
            self._write_note({"belongs": dict(belongs)})
            return None
        if note["belongs"] != belongs:
            raise ValueError(
                f"{self.folder} holds an unfinished run on other pictures or with another model "
                f"({'; '.join(_changes(note['belongs'], belongs))}); remove it to start over"
            )
        joined = note.get("joined")
        return (joined[0], joined[1]) if joined and self.out.exists() and self.rejects.exists() else None

    def join(self, job: Run, starts: range) -> tuple[list[Any], list[Rejected]]:
        """Write the outputs from all chunks; the rows and the rejected pictures."""
        lines = [json.loads(line) for start in starts for line in self.chunk(start).read_text().splitlines()]
        rows: list[Any] = [from_record(job.task.row, line["row"]) for line in lines if "row" in line]
        rejected = [from_record(Rejected, line["rejected"]) for line in lines if "rejected" in line]
        job.task.write(rows, job.pictures, self.out)
        write_rows(rejected, Rejected, self.rejects)
        note = self._note()
        assert note is not None
        self._write_note({**note, "joined": [len(rows), len(rejected)]})
        return rows, rejected

    def remove(self) -> None:
        """The note is removed last: without it the rest could not be recognised as obsolete."""
        for path in sorted(path for path in self.folder.iterdir() if path.name != NOTE):
            path.unlink()
        (self.folder / NOTE).unlink()
        self.folder.rmdir()

    def _note(self) -> dict[str, Any] | None:
        """None if the run has not done anything yet: the note is written first."""
        path = self.folder / NOTE
        try:
            note = json.loads(path.read_text())
            if isinstance(note, dict) and isinstance(note.get("belongs"), dict):
                return note
        except FileNotFoundError:
            note = None
        except ValueError:  # half-written by a version that did not write it atomically
            note = None
        if others := list(self.folder.glob("*.jsonl")):
            raise ValueError(
                f"{self.folder} holds {others[0].name} of a run that left no note; remove it to start over"
            )
        return None

    def _write_note(self, note: Mapping[str, Any]) -> None:
        write_text_atomically(self.folder / NOTE, json.dumps(note))


def rejects_of(out: Path) -> Path:
    """Where :func:`predict_files` lists the pictures that cannot be read."""
    return out.with_name(out.name + ".rejects.csv")


def digest_of_model(model: nn.Module) -> dict[str, str]:
    """What determines a model's predictions: its weights, its preprocessing and, of a token model, its pruning."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    found = {"weights": weights.hexdigest(), "model": type(model).__name__}
    if isinstance(model, TokenModel | DenseModel):
        tokens = tokens_of(model)
        found["preprocessing"] = repr(sorted(tokens.pretrained_cfg.items()))
        found["pruning"] = ADDRESS.sub("", repr(tokens.reducer))
    if isinstance(model, DenseModel):
        found["preprocessing"] += ADDRESS.sub("", repr((model.img_size, model.pictures)))
        found["pruning"] += ADDRESS.sub("", f", restore {model.backbone.restore!r}")
    return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    known = {part: found if isinstance(found := before.get(part), dict) else {} for part in now}
    odd = [part for part, digest in now["model"].items() if known["model"].get(part) != digest]
    return [f"other {part}" for part in odd] + changes(known["pictures"], now["pictures"])


def _fill(parts: Parts, job: Run, missing: list[int]) -> None:
    """Predict the chunks that begin there, and write each."""
    wanted = [batch for start in missing for batch in job.batches(start)]
    records: list[dict[str, Any]] = []
    answered = run(job.task, job.model, job.pictures, wanted, job.workers, job.strict)
    for batch, answers in zip(wanted, answered, strict=True):
        job.on_rows(answers.rows)
        records += [{"row": record_of(row)} for row in answers.rows]
        records += [{"rejected": record_of(one)} for one in answers.rejected]
        job.on_done(answers.asked)
        last = batch[-1].place
        if (last + 1) % job.chunk == 0 or last + 1 == len(job.pictures):
            lines = (json.dumps(record) + "\n" for record in records)  # ASCII: any name comes back as it was
            write_text_atomically(parts.chunk(last - last % job.chunk), "".join(lines))
            records = []
