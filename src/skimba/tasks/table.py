"""The tasks by name."""

from __future__ import annotations

from typing import Any, Protocol

from skimba.tasks.base import Task
from skimba.tasks.classification import Classification
from skimba.tasks.clips import ClipClassification
from skimba.tasks.detection import Detection
from skimba.tasks.segmentation import Segmentation


class Tasked(Protocol):
    """A model that names its task: a key of TASKS."""

    @property
    def task(self) -> str: ...


def task_of(model: Tasked) -> Task:
    """The task of a model, for evaluation and prediction: settings that matter only in training have their defaults.

    Raises:
        ValueError: the model's task is unknown.
    """
    if model.task not in TASKS:
        raise ValueError(f"{type(model).__name__} is for the task {model.task!r}; known: {', '.join(TASKS)}")
    task: Task = TASKS[model.task]()
    return task


# Frozen dataclasses that keep the protocol Task.
TASKS: dict[str, type[Any]] = {
    "classification": Classification,
    "clips": ClipClassification,
    "detection": Detection,
    "segmentation": Segmentation,
}
