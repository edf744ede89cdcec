"""What all data sets have in common: numbered pictures, each with a name and a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from PIL.Image import Image

Mode = Literal["RGB", "L"]
CHANNELS: dict[Mode, int] = {"L": 1, "RGB": 3}
UNKNOWN = -1  # the class of an unlabelled picture


class Pictures(Protocol):
    """A data set. Decoding happens in ``picture``, so that worker processes can do it.

    Attributes:
        classes: their names; class numbers are indices into it.
        mode: of the pictures, as Pillow names it: ``"RGB"`` or ``"L"`` (grey).
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def mode(self) -> Mode: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What the picture is called in predictions and messages."""

    def target(self, index: int) -> Any:
        """What a task is to find in it, as plain data. For classification its class, or UNKNOWN."""

    def stamp(self, index: int) -> int:
        """A number that changes with the picture, available without decoding it: the size of its file, or a checksum."""

    def picture(self, index: int) -> Image:
        """The picture itself. Raises ValueError if it cannot be read."""


@runtime_checkable
class Clips(Pictures, Protocol):
    """A data set of clips. ``picture`` gives the frame in the middle."""

    def frames(self, index: int, count: int) -> list[Image]:
        """``count`` frames from the middles of as many equal parts of the clip, of one size. Raises ValueError if it cannot be
        read."""


@dataclass(frozen=True)
class Selected:
    """Some pictures of a data set, as a data set."""

    of: Pictures
    indices: Sequence[int]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.of.classes

    @property
    def mode(self) -> Mode:
        return self.of.mode

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.of.name(self.indices[index])

    def target(self, index: int) -> Any:
        return self.of.target(self.indices[index])

    def stamp(self, index: int) -> int:
        return self.of.stamp(self.indices[index])

    def picture(self, index: int) -> Image:
        return self.of.picture(self.indices[index])


@dataclass(frozen=True)
class SelectedClips(Selected):
    """Some clips of a data set."""

    of: Clips

    def frames(self, index: int, count: int) -> list[Image]:
        return self.of.frames(self.indices[index], count)


def select(pictures: Pictures, indices: Sequence[int]) -> Selected:
    """Some pictures, or clips, of a data set, as a data set."""
    return SelectedClips(pictures, indices) if isinstance(pictures, Clips) else Selected(pictures, indices)
