"""Where tokens sit in the full sequence, who owns what, and in which order scans visit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from skimba.tokens.gathers import group_sum, take
from skimba.tokens.walks import snake_orders


@dataclass(frozen=True)
class Alignment:
    """What the layers do about positions whose token is gone; keys of (or entries for) the tables in
    :mod:`skimba.layers.alignment`.

    Attributes:
        scan: ``"none"``, ``"decay"`` or ``"hold"``: the time that a scan lets pass.
        conv: ``"condensed"``, ``"zeros"`` or ``"held"``: what a convolution finds at a missing position.
        gap_delta: with ``decay``, the time step of a missing position: that of the ``"previous"`` kept token in the scan,
            of its ``"own"`` (the next kept token), or of the time step's ``"bias"`` alone.
    """

    scan: str | Callable[..., Any] = "none"
    conv: str | Callable[..., Any] = "condensed"
    gap_delta: str = "previous"


@dataclass(frozen=True, eq=False)
class ScanOrder:
    """One scan over the tokens that are left.

    Attributes:
        missing: ``(b l)`` float32, number of positions without a token between a visited token and the one visited before it
            (0 for the first, whose state is zero anyway); None if no token is gone.
        size: ``(b l)`` float32, number of positions that a visited token owns; None if nothing is owned by another.
        index: ``(b l)`` or ``(l)`` int32, the token that step j visits; None if the scan follows the sequence.
        move: ``(b l)`` or ``(l)`` direction code of step j (see :func:`skimba.tokens.walks.snake_orders`).
        reverse: run from the last step to the first. ``missing`` then counts towards the following token.
    """

    missing: Tensor | None = None
    size: Tensor | None = None
    index: Tensor | None = None
    move: Tensor | None = None
    reverse: bool = False

    def window(self, steps: slice) -> ScanOrder:
        """The scan over those tokens alone; it follows the sequence."""
        assert self.index is None
        missing, size = (None if x is None else x[:, steps] for x in (self.missing, self.size))
        return replace(self, missing=missing, size=size)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of a sequence sit. It changes only when tokens are removed.

    Attributes:
        grid: ``(h, w)`` of the image positions.
        class_position: position of the class token in the full sequence; None if the model has none.
        position: ``(b l)`` int64: the position of each token in the full sequence, ascending unless :meth:`Tokens.rearrange`
            changed it; None while dense.
        owner: ``(b L)`` int64: the token (0 … l-1) that owns each position; None if positions have no owner.
        alignment: what layers do about the positions that are gone.
        device: where scan orders are wanted.
    """

    grid: tuple[int, int]
    class_position: int | None = None
    position: Tensor | None = None
    owner: Tensor | None = None
    alignment: Alignment = field(default_factory=Alignment)
    device: torch.device | None = None

    @property
    def full_length(self) -> int:
        return self.grid[0] * self.grid[1] + (self.class_position is not None)

    @property
    def length(self) -> int:
        return self.full_length if self.position is None else self.position.shape[1]

    @property
    def image_count(self) -> int:
        """Tokens now in the sequence, without the class token."""
        return self.length - (self.class_position is not None)

    def positions(self, batch: int, device: torch.device) -> Tensor:
        """``(b l)`` position of every token, also while dense."""
        if self.position is not None:
            return self.position
        return torch.arange(self.full_length, device=device).expand(batch, -1)

    @cached_property
    def size(self) -> Tensor | None:
        """``(b l)`` float32: how many positions each token owns; None if every token owns just its own."""
        if self.owner is None:
            return None
        return group_sum(torch.ones_like(self.owner, dtype=torch.float32), self.owner, self.length)

    @cached_property
    def owner_source(self) -> Tensor | None:
        """``(b L)`` int32: every position shows its owner (see :mod:`skimba.ops.source`); None without owners."""
        return None if self.owner is None else self.owner.int()

    @cached_property
    def position_source(self) -> Tensor | None:
        """``(b L)`` int32: positions of present tokens show these, the others -1; None while dense."""
        if self.position is None:
            return None
        rank = torch.arange(self.length, dtype=torch.int32, device=self.position.device).expand_as(self.position)
        source = rank.new_full((len(rank), self.full_length), -1)
        return source.scatter(1, self.position, rank)

    @cached_property
    def class_rank(self) -> Tensor | int | None:
        """Place of the class token in the present sequence: ``(b)`` int64, one number while dense, or None."""
        if self.class_position is None or self.position is None:
            return self.class_position
        return (self.position == self.class_position).byte().argmax(1)

    def class_index(self, batch: int, device: torch.device) -> Tensor:
        """``(b 1)`` int64: :attr:`class_rank` as an index of :func:`take`."""
        rank = self.class_rank
        assert rank is not None
        return rank[:, None] if isinstance(rank, Tensor) else torch.full((batch, 1), rank, device=device)

    @cached_property
    def class_range(self) -> tuple[int, int]:
        """The least and the largest place of a class token in the sequences of the batch."""
        rank = self.class_rank
        if isinstance(rank, Tensor):
            return (0, self.length - 1) if rank.is_meta else (int(rank.min()), int(rank.max()))
        assert rank is not None
        return rank, rank

    @cached_property
    def line_orders(self) -> tuple[ScanOrder, ScanOrder]:
        """Vim's two scans: along the sequence, and back."""
        if self.position is None:
            return ScanOrder(), ScanOrder(reverse=True)
        between = (self.position.diff(dim=1) - 1).float()  # (b l-1)
        zero = between.new_zeros(len(between), 1)
        return (
            ScanOrder(missing=torch.cat([zero, between], 1), size=self.size),
            ScanOrder(missing=torch.cat([between, zero], 1), size=self.size, reverse=True),
        )

    @cached_property
    def snake_orders(self) -> tuple[ScanOrder, ...]:
        """PlainMamba's four scans."""
        orders, moves = (t.to(self.device) for t in snake_orders(*self.grid))
        return tuple(self._order(order, move) for order, move in zip(orders, moves, strict=True))

    def _order(self, order: Tensor, move: Tensor) -> ScanOrder:
        full_step = order.argsort()  # the step at which the full scan visits each position
        if self.position is None:
            return ScanOrder(index=order.int(), move=move[order])
        step, index = full_step[self.position].sort(dim=1)  # (b l)
        missing = torch.cat([torch.zeros_like(step[:, :1]), step.diff(dim=1) - 1], 1).float()
        return ScanOrder(
            missing=missing,
            size=None if self.size is None else take(self.size, index),
            index=index.int(),
            move=move[take(self.position, index)],
        )
