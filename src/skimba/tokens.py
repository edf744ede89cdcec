"""The one thing that travels through a model: its tokens, and where they sit in the full sequence.

Letters, for the whole library: ``b`` images, ``l`` tokens now in the sequence, ``L`` positions of the full sequence,
``d`` model width, ``e`` inner width (scan channels), ``n`` state size, ``r`` rank of the time step, ``k`` kernel size,
``h w`` grid, ``c`` image channels. In code the two lengths are ``length`` and ``full_length``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.scan_order import snake_orders


def flat_rows(index: Tensor, length: int) -> Tensor:
    """``index (b k)`` into sequences of ``length``, as row numbers ``(b*k)`` of the batch laid end to end."""
    first_row = torch.arange(index.shape[0], device=index.device)[:, None] * length
    return (index + first_row).flatten()


def take(x: Tensor, index: Tensor) -> Tensor:
    """Token ``index[i, j]`` of image ``i``, for every ``i`` and ``j``.

    Args:
        x: ``(b l ...)``.
        index: ``(b k)`` int64, or ``(k)`` where all images share it.

    Returns:
        ``(b k ...)``.
    """
    if index.dim() == 1:
        return x.index_select(1, index)
    rows = x.flatten(0, 1).index_select(0, flat_rows(index, x.shape[1]))
    return rows.unflatten(0, index.shape)


def group_sum(x: Tensor, group: Tensor, count: int) -> Tensor:
    """Sum of the tokens of each group: ``x (b l ...)``, ``group (b l)`` in ``0 … count-1`` -> ``(b count ...)``."""
    batch = x.shape[0]
    total = x.new_zeros(batch * count, *x.shape[2:])
    return total.index_add(0, flat_rows(group, count), x.flatten(0, 1)).unflatten(0, (batch, count))


def _share_of_group(weight: Tensor, group: Tensor, count: int) -> Tensor:
    """Each token's share of the weight of its group: ``weight (b l)``, ``group (b l)`` in ``0 … count-1`` -> ``(b l)``."""
    return weight / take(group_sum(weight, group, count), group)


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
        move: ``(b l)`` or ``(l)`` direction code of step j (see :func:`skimba.scan_order.snake_orders`).
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


@dataclass(frozen=True, eq=False)
class ScanRecord:
    """What the scans of one block computed, for importance functions; all in sequence order.

    Attributes:
        y: for each scan the gated output ``(b l e)``.
        raw_delta: for each set of time steps ``(b l e)`` before softplus (Vim: one per direction; PlainMamba: one in all).
        delta_bias: what is added to each before softplus, ``(e)``.
    """

    y: tuple[Tensor, ...]
    raw_delta: tuple[Tensor, ...]
    delta_bias: tuple[Tensor, ...]

    @property
    def delta(self) -> tuple[Tensor, ...]:
        """For each set the time steps ``(b l e)``, after softplus."""
        return tuple(F.softplus(d + bias) for d, bias in zip(self.raw_delta, self.delta_bias, strict=True))


@dataclass(frozen=True, eq=False)
class Tokens:
    """The state of a model between two blocks.

    Attributes:
        x: ``(b l d)``. Vim: what the last mixer returned, not yet added to the residual; PlainMamba: the stream itself.
        residual: ``(b l d)`` float32, Vim's residual stream before ``x`` is added; None where ``x`` is the stream.
        layout: where the tokens sit.
        scan: what the last block's scans computed, if a reducer asked for it.
    """

    x: Tensor
    layout: Layout
    residual: Tensor | None = None
    scan: ScanRecord | None = None

    @property
    def stream(self) -> Tensor:
        """``(b l d)`` the residual stream after the last block."""
        return self.x if self.residual is None else self.residual + self.x

    @property
    def position(self) -> Tensor:
        """``(b l)`` position of every token in the full sequence."""
        return self.layout.positions(self.x.shape[0], self.x.device)

    @property
    def owner(self) -> Tensor | None:
        """``(b L)`` the token that owns each position, or None (see :class:`Layout`)."""
        return self.layout.owner

    @property
    def grid(self) -> tuple[int, int]:
        return self.layout.grid

    @property
    def class_position(self) -> int | None:
        return self.layout.class_position

    def images(self, rows: Tensor) -> Tokens:
        """Those images ``rows (i)`` of the batch."""
        layout, scan = self.layout, self.scan
        if layout.position is not None:
            owner = None if layout.owner is None else layout.owner[rows]
            layout = replace(layout, position=layout.position[rows], owner=owner)
        if scan is not None:
            y, raw_delta = (tuple(part[rows] for part in parts) for parts in (scan.y, scan.raw_delta))
            scan = replace(scan, y=y, raw_delta=raw_delta)
        return Tokens(self.x[rows], layout, None if self.residual is None else self.residual[rows], scan)

    def keep(self, kept: Tensor, heir: Tensor | None, alignment: Alignment) -> Tokens:
        """Remove all tokens but ``kept``; the values of the others are lost.

        Args:
            kept: ``(b k)`` int64, ascending: the tokens (0 … l-1) that stay.
            heir: ``(b l)`` for every present token the kept one (0 … k-1) that inherits its positions (a kept token is its own
                heir), or None: positions of removed tokens have no owner from here on.
            alignment: what the layers that follow do about missing positions.
        """
        position = self.position
        owner = None
        if heir is not None:
            owner = heir if self.owner is None else take(heir, self.owner)
        layout = replace(self.layout, position=take(position, kept), owner=owner, alignment=alignment)
        residual = None if self.residual is None else take(self.residual, kept)
        return Tokens(take(self.x, kept), layout, residual)

    def merge(self, kept: Tensor, heir: Tensor, alignment: Alignment, worth: Tensor | None = None) -> Tokens:
        """As :meth:`keep`, but each kept token becomes the mean of all that it inherits, weighted by the positions owned.

        Both streams are averaged alike, unless ``worth (b l)`` is given: a further weight of every token, in ``x`` only.
        """
        batch, length = self.x.shape[:2]
        size = self.layout.size
        if size is None:
            size = torch.ones(batch, length, device=self.x.device)
        share = _share_of_group(size, heir, kept.shape[1])
        share_in_x = share if worth is None else _share_of_group(size * worth, heir, kept.shape[1])

        def mean(x: Tensor, share: Tensor) -> Tensor:
            return group_sum(x * share[..., None], heir, kept.shape[1]).to(x.dtype)

        residual = None if self.residual is None else mean(self.residual, share)
        return replace(self.keep(kept, heir, alignment), x=mean(self.x, share_in_x), residual=residual)

    def rearrange(self, slots: Tensor, index: Tensor) -> Tokens:
        """Put token ``index[i, j]`` of image ``i`` into place ``slots[i, j]``; tokens not named stay.

        Args:
            slots, index: ``(b m)`` int64, the same places in two orders.
        """
        order = torch.arange(self.x.shape[1], device=index.device).expand(len(index), -1).scatter(1, slots, index)
        owner = None if self.owner is None else take(order.argsort(dim=1), self.owner)
        layout = replace(self.layout, position=take(self.position, order), owner=owner)
        residual = None if self.residual is None else take(self.residual, order)
        return Tokens(take(self.x, order), layout, residual)

    def scatter(self, x: Tensor | None = None) -> Tensor:
        """Back to the full grid: every image position shows the token that owns it, or zeros if none does.

        Args:
            x: ``(b l d)`` what to scatter; the stream if None.

        Returns:
            ``(b h w d)``.
        """
        x = self.stream if x is None else x
        layout = self.layout
        if layout.owner is not None:
            full = take(x, layout.owner)
        elif layout.position is not None:
            full = group_sum(x, layout.position, layout.full_length)
        else:
            full = x
        if layout.class_position is not None:
            full = torch.cat([full[:, : layout.class_position], full[:, layout.class_position + 1 :]], 1)
        return full.unflatten(1, layout.grid)


@dataclass(frozen=True, eq=False)
class Groups:
    """A batch whose images no longer have equally many tokens, cut into parts that do.

    Attributes:
        rows: for each part the images ``(i)`` of the batch that are in it.
        parts: their tokens.
    """

    rows: tuple[Tensor, ...]
    parts: tuple[Tokens, ...]

    def map(self, go_on: Callable[[Tokens], Tokens | Groups]) -> Groups:
        """Every part taken further; what falls apart again becomes parts of its own."""
        rows: list[Tensor] = []
        parts: list[Tokens] = []
        for mine, part in zip(self.rows, self.parts, strict=True):
            result = go_on(part)
            inner = (
                result
                if isinstance(result, Groups)
                else Groups((torch.arange(len(mine), device=mine.device),), (result,))
            )
            rows += [mine[further] for further in inner.rows]
            parts += inner.parts
        return Groups(tuple(rows), tuple(parts))

    def join(self, read: Callable[[Tokens], Tensor]) -> Tensor:
        """What ``read`` makes of the parts, ``(i ...)`` each, in the order of the batch."""
        return torch.cat([read(part) for part in self.parts])[torch.cat(self.rows).argsort()]
