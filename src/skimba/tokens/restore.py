"""Back to the full grid: what a position shows whose token was removed. A way is one entry of :data:`RESTORE`.

``zeros``: nothing. ``owner``: the token that owns it. ``last``: what it was when its token was removed. ``last_plus_change``:
that, and how its owner has changed since, so that it keeps its own detail and follows its owner (ours). ``auto``, the default:
``last_plus_change`` where every position has an owner, ``last`` where tokens were dropped without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from skimba.tokens.gathers import take
from skimba.tokens.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Shown:
    """What the image positions of the full grid show.

    Attributes:
        values: ``(b m d)``, each distinct value once.
        index: ``(b h*w)`` int64: which of them a position shows; None if value and position are one.
    """

    values: Tensor
    index: Tensor | None = None

    def full(self) -> Tensor:
        """``(b h*w d)``."""
        return self.values if self.index is None else take(self.values, self.index)


class Restore(Protocol):
    """A way to restore, and what it remembers of the positions of a batch. Every method gives a new one."""

    def reduced(self, before: Tokens, after: Tokens) -> Restore:
        """What to remember once a reducer has made ``after`` of ``before``, images and their order unchanged."""

    def images(self, rows: Tensor) -> Restore:
        """The images ``rows (i)`` of the batch."""

    def show(self, tokens: Tokens) -> Shown:
        """The full grid now.

        Raises:
            ValueError: it needs owners, and the tokens were reduced without.
        """


@dataclass(frozen=True)
class Zeros:
    """A removed position is zero."""

    def reduced(self, before: Tokens, after: Tokens) -> Restore:
        return self

    def images(self, rows: Tensor) -> Restore:
        return self

    def show(self, tokens: Tokens) -> Shown:
        source = tokens.layout.position_source
        if source is None:
            return Shown(_image_part(tokens, tokens.stream))
        stream = tokens.stream
        values = torch.cat([stream, torch.zeros_like(stream[:, :1])], 1)  # the last one is the zero
        return Shown(values, _image_part(tokens, torch.where(source < 0, stream.shape[1], source.long())))


@dataclass(frozen=True)
class Owner:
    """A removed position shows the token that owns it."""

    def reduced(self, before: Tokens, after: Tokens) -> Restore:
        return self

    def images(self, rows: Tensor) -> Restore:
        return self

    def show(self, tokens: Tokens) -> Shown:
        if tokens.layout.position is None:
            return Shown(_image_part(tokens, tokens.stream))
        return Shown(tokens.stream, _image_part(tokens, _owner(tokens, "owner")))


@dataclass(frozen=True, eq=False)
class Last:
    """A removed position stays what it was when its token was removed.

    Attributes:
        last: ``(b L d)`` every position as it was before the latest reduction; None before the first.
    """

    last: Tensor | None = None

    def reduced(self, before: Tokens, after: Tokens) -> Restore:
        return replace(self, last=self._full(before))

    def images(self, rows: Tensor) -> Restore:
        return self if self.last is None else replace(self, last=self.last[rows])

    def show(self, tokens: Tokens) -> Shown:
        return Shown(_image_part(tokens, self._full(tokens)))

    def _full(self, tokens: Tokens) -> Tensor:
        stream = tokens.stream
        if self.last is None:
            return stream
        return self.last.scatter(1, tokens.position[..., None].expand_as(stream), stream)


@dataclass(frozen=True, eq=False)
class LastPlusChange:
    """A position is what it was before the latest reduction, plus how its owner has changed since.

    A token that others were merged into is its own owner: it keeps its own detail too.

    Attributes:
        last: ``(b L d)`` every position as it was before the latest reduction; None before the first.
        then: ``(b L d)`` its owner right after it.
    """

    last: Tensor | None = None
    then: Tensor | None = None

    def reduced(self, before: Tokens, after: Tokens) -> Restore:
        owner = _owner(after, "last_plus_change")
        return replace(self, last=self._full(before), then=take(after.stream, owner))

    def images(self, rows: Tensor) -> Restore:
        if self.last is None or self.then is None:
            return self
        return replace(self, last=self.last[rows], then=self.then[rows])

    def show(self, tokens: Tokens) -> Shown:
        return Shown(_image_part(tokens, self._full(tokens)))

    def _full(self, tokens: Tokens) -> Tensor:
        if self.last is None or self.then is None:
            return tokens.stream
        return self.last + (take(tokens.stream, _owner(tokens, "last_plus_change")) - self.then)


@dataclass(frozen=True)
class Auto:
    """:class:`LastPlusChange` where the first reduction leaves every position an owner, :class:`Last` where it does not."""

    def reduced(self, before: Tokens, after: Tokens) -> Restore:
        way: Restore = Last() if after.layout.owner is None else LastPlusChange()
        return way.reduced(before, after)

    def images(self, rows: Tensor) -> Restore:
        return self

    def show(self, tokens: Tokens) -> Shown:
        return Shown(_image_part(tokens, tokens.stream))


def _owner(tokens: Tokens, name: str) -> Tensor:
    if tokens.layout.owner is None:
        raise ValueError(
            f"restore {name!r} needs positions with owners, got tokens reduced without an owner: take 'last' or 'zeros'"
        )
    return tokens.layout.owner


def _image_part(tokens: Tokens, full: Tensor) -> Tensor:
    """The image positions of ``full (b L ...)``, in raster order."""
    return tokens.layout.image_part(full).flatten(1, len(tokens.grid))


def start_restore(way: str | Callable[[], Restore]) -> Restore:
    """A way to restore, at the start of a forward pass.

    Args:
        way: a key of :data:`RESTORE`, or a function or class that makes one.

    Raises:
        ValueError: an unknown key.
    """
    if callable(way):
        return way()
    if way not in RESTORE:
        raise ValueError(f"unknown restore {way!r}; known: {', '.join(RESTORE)}, or a function")
    return RESTORE[way]()


RESTORE: dict[str, Callable[[], Restore]] = {
    "auto": Auto,
    "zeros": Zeros,
    "owner": Owner,
    "last": Last,
    "last_plus_change": LastPlusChange,
}
