"""The protocol of a task: all that training, evaluation and prediction know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image
from torch import Tensor, nn

from skimba.data.loading import Batch, Reader
from skimba.data.pictures import Pictures

Forward = Callable[..., Any]  # a model as training runs it: over all processes, in the recipe's dtype
Criterion = Callable[
    [Forward, Any, Any], Tensor
]  # (forward, images, targets) -> mean loss of the micro batch, a scalar


class Task(Protocol):
    """A task is a frozen dataclass; its fields are the settings of a recipe that it reads.

    Detection, for instance: its reader collates images of several sizes and their boxes into lists; its criterion adds up the
    losses that the model itself returns in training; its rows hold the boxes of a picture; its measure is COCO's, over all rows.
    ``model`` is the kind of model that names the task.
    """

    @property
    def row(self) -> type[Any]:
        """The frozen dataclass of one picture's prediction. It has ``index`` and ``name``; :mod:`skimba.tasks.tables` says
        which types its fields may have."""

    @property
    def chunk(self) -> int:
        """Pictures between two saves of a long run: the most that an interruption can cost."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Suffixes of what :meth:`write` writes; an empty one is a folder."""

    def check(self, model: nn.Module, pictures: Pictures) -> None:
        """Raise ValueError unless the model fits this data set: its classes, its channels. Reads no picture."""

    def check_targets(self, pictures: Pictures) -> None:
        """Raise ValueError unless every picture has a target to train on. Reads no picture."""

    def reader(self, model: nn.Module) -> Reader:
        """How pictures are read for evaluation and prediction; they need no targets there."""

    def training_reader(self, model: nn.Module) -> Reader:
        """How pictures are read, and augmented, for training."""

    def criterion(self, model: nn.Module, teacher: nn.Module | None) -> Criterion:
        """The loss. ``teacher``: a model to distil from, if any.

        Raises:
            ValueError: there is a teacher, and this task cannot learn from one.
        """

    def predict(self, model: nn.Module, pictures: Pictures, batch: Batch) -> list[Any]:
        """Rows for a batch of those pictures, in order. The model is in evaluation mode, the batch on its device."""

    def measure(self, rows: Sequence[Any], pictures: Pictures) -> dict[str, Any]:
        """Figures of the rows of a whole data set, as plain data. Numbers are logged in training; the first one is the
        headline figure.

        Raises:
            ValueError: no picture has a target.
        """

    def describe(self, figures: Mapping[str, Any]) -> str:
        """What to print of :meth:`measure`, a few lines."""

    def write(self, rows: Sequence[Any], pictures: Pictures, path: Path) -> None:
        """Rows of those pictures, in the format that the path's suffix names, atomically (a folder: file by file).

        Raises:
            ImportError: a package that the format needs is not installed.
            OSError: it cannot be written.
        """

    def draw(self, picture: Image, row: Any) -> Image:
        """The picture with its prediction drawn on it."""
