"""What the tasks with boxes, masks and maps refuse before any work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from skimba.data import Pictures
from skimba.data.loading import TRIES


def check_targets_are(kind: type, what: str, pictures: Pictures) -> None:
    """Raise ValueError unless the first target that can be read is of that kind: data sets have one kind of targets."""
    readings = (_reading(pictures, index) for index in range(min(TRIES, len(pictures))))
    if not isinstance(next((found for found in readings if found is not None), None), kind):
        raise ValueError(f"the pictures have no {what} to train on, for instance {pictures.name(0)}")


def _reading(pictures: Pictures, index: int) -> Any:
    """A target, read; None if it cannot be."""
    target = pictures.target(index)
    try:
        return target if isinstance(target, int) else target.read()
    except (ValueError, OSError):  # a reject, when its turn comes
        return None


def check_augmentation(name: str, known: Iterable[str], task: str) -> None:
    """Raise ValueError unless the task has it."""
    if name not in known:
        raise ValueError(f"augmentation must be one of {', '.join(known)} for {task}, got {name!r}")


def check_no_teacher(teacher: nn.Module | None, task: str) -> None:
    """Raise ValueError if there is one."""
    if teacher is not None:
        raise ValueError(f"{task} does not learn from a teacher: leave teacher out of the recipe")
