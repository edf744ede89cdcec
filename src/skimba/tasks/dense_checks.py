"""What the tasks with boxes, masks and maps refuse before any work."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from skimba.data import Pictures


def check_targets_are(kind: type, what: str, pictures: Pictures) -> None:
    """Raise ValueError unless the first target, read, is of that kind: data sets have one kind of targets."""
    target = pictures.target(0)
    found = None if isinstance(target, int) else target.read()
    if not isinstance(found, kind):
        raise ValueError(f"the pictures have no {what} to train on, for instance {pictures.name(0)}")


def check_augmentation(name: str, known: Iterable[str], task: str) -> None:
    """Raise ValueError unless the task has it."""
    if name not in known:
        raise ValueError(f"augmentation must be one of {', '.join(known)} for {task}, got {name!r}")


def check_no_teacher(teacher: nn.Module | None, task: str) -> None:
    """Raise ValueError if there is one."""
    if teacher is not None:
        raise ValueError(f"{task} does not learn from a teacher: leave teacher out of the recipe")
