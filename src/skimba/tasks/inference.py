"""Predictions for any number of pictures, resumably and in several processes: what ``skimba predict`` does.

The pictures are cut into chunks. A finished chunk is two small files in ``OUT.parts``, written atomically; process r of n does
every n-th chunk that is not there yet. The last step joins them. So a run killed at any moment loses one chunk at most, and may
go on with another number of processes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from skimba.data.image_files import ImageFile, ImageFiles
from skimba.data.loading import Rejected, Wanted, load_batches
from skimba.data.transforms import evaluation_transform
from skimba.runtime.files import write_text_atomically
from skimba.runtime.processes import by_writer, gather, rank, world_size
from skimba.tasks.predictions import Prediction, classify, read_predictions, write_table

CHUNK = 512  # pictures: what a kill can cost


def predict_files(
    model: nn.Module,
    files: ImageFiles,
    out: str | Path,
    what: dict[str, Any],
    batch_size: int = 32,
    workers: int = 0,
    on_done: Callable[[int], object] = lambda count: None,
) -> tuple[int, int]:
    """Predict all pictures into ``out`` (``.csv`` or ``.parquet``); those that cannot be read go to ``OUT.rejects.csv``.

    Args:
        what: whatever decides the predictions (model, weights, pruning) as plain data: a run goes on only with the same.
        on_done: called with the number of pictures of this process that a step finished.

    Returns:
        How many pictures were predicted and how many rejected.

    Raises:
        ValueError: the parts there belong to other pictures or another model.
    """
    out = Path(out)
    parts = out.with_name(out.name + ".parts")
    by_writer(lambda: _begin(parts, {**what, "pictures": _fingerprint(files.files)}))
    starts = range(0, len(files), CHUNK)
    wanted: list[list[Wanted]] = []
    for start in starts[rank() :: world_size()]:
        chunk = range(start, min(start + CHUNK, len(files)))
        if _rejects(parts, start).exists():
            on_done(len(chunk))
        else:
            wanted += [
                [Wanted(i) for i in chunk[first : first + batch_size]] for first in range(0, len(chunk), batch_size)
            ]
    predictions: list[Prediction] = []
    rejected: list[Rejected] = []
    for batch, asked in zip(load_batches(files, evaluation_transform(model), wanted, workers), wanted, strict=True):
        predictions += classify(model, files, batch)
        rejected += batch.rejected
        on_done(len(asked))
        last = asked[-1].place
        if (last + 1) % CHUNK == 0 or last + 1 == len(files):
            start = last - last % CHUNK
            write_table(predictions, Prediction, parts / f"{start:09d}.csv")
            write_table(rejected, Rejected, _rejects(parts, start))  # last: its presence says that the chunk is done
            predictions, rejected = [], []
    gather(None)  # all chunks are there
    return by_writer(lambda: _join(out, parts, starts))


def _begin(parts: Path, what: dict[str, Any]) -> None:
    parts.mkdir(parents=True, exist_ok=True)
    note, said = parts / "what.json", json.dumps(what, sort_keys=True)
    if not note.exists():
        note.write_text(said)
    elif note.read_text() != said:
        raise ValueError(
            f"{parts} holds an unfinished run on other pictures or with another model; remove it to start anew"
        )


def _join(out: Path, parts: Path, starts: Sequence[int]) -> tuple[int, int]:
    predictions = [one for start in starts for one in read_predictions(parts / f"{start:09d}.csv")]
    rejected = [line for start in starts for line in _rejects(parts, start).read_text().splitlines(keepends=True)[1:]]
    write_table(predictions, Prediction, out)
    rejects = out.with_name(out.name + ".rejects.csv")
    write_text_atomically(rejects, "".join([",".join(Rejected._fields) + "\n", *rejected]))
    shutil.rmtree(parts)
    return len(predictions), len(rejected)


def _rejects(parts: Path, start: int) -> Path:
    return parts / f"{start:09d}.rejects.csv"


def _fingerprint(files: Sequence[ImageFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.name}\0{file.offset}\n".encode())
    return digest.hexdigest()
