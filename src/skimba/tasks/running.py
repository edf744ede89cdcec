"""The one loop in which a model predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from skimba.data.loading import Rejected, Wanted, in_order, load_batches
from skimba.data.pictures import Pictures
from skimba.models.evaluation import evaluating
from skimba.runtime.processes import gather, moved, rank, world_size
from skimba.tasks.base import Task


class Answers(NamedTuple):
    """The results of a batch: rows of predictions, pictures that could not be read, and how many were requested."""

    rows: list[Any]
    rejected: list[Rejected]
    asked: int


def run(
    task: Task,
    model: nn.Module,
    pictures: Pictures,
    wanted: Iterable[list[Wanted]],
    workers: int = 0,
    strict: bool = False,
) -> Iterator[Answers]:
    """The model's predictions for each wanted batch, in order.

    Args:
        model: with ``pretrained_cfg``, which says how pictures are preprocessed; in evaluation mode meanwhile.

    Raises:
        ValueError: an unreadable picture and ``strict``.
    """
    device = next(model.parameters()).device
    with evaluating(model):
        for batch in load_batches(pictures, task.reader(model), wanted, workers, strict):
            rows: list[Any] = []
            if len(batch.indices):
                with torch.inference_mode():
                    rows = task.predict(model, pictures, batch._replace(images=moved(batch.images, device)))
            yield Answers(rows, batch.rejected, batch.asked)


def predict_all(
    task: Task,
    model: nn.Module,
    pictures: Pictures,
    batch_size: int,
    workers: int = 0,
    strict: bool = False,
    on_done: Callable[[int], object] = lambda count: None,
) -> tuple[list[Any], list[Rejected]]:
    """Rows for all pictures in order, and those that could not be read, in every process; under torchrun the work is shared.

    Args:
        on_done: called with the number of pictures of this process that a step finished.

    Raises:
        ValueError: an unreadable picture and ``strict``, or none that can be read.
    """
    rows: list[Any] = []
    rejected: list[Rejected] = []
    wanted = in_order(len(pictures), batch_size, rank(), world_size())
    for answers in run(task, model, pictures, wanted, workers, strict):
        rows += answers.rows
        rejected += answers.rejected
        on_done(answers.asked)
    everything = gather((rows, rejected))
    rows = sorted((one for part, _ in everything for one in part), key=lambda one: one.index)
    rejected = [one for _, part in everything for one in part]
    if not rows:
        raise ValueError(f"none of the {len(pictures)} pictures can be read, for instance {rejected[0].reason}")
    return rows, rejected
