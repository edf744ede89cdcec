"""Where tokens sit in the full sequence, who owns what, and in which order scans visit them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.tokens.alignment import NONE, Alignment
from skimba.tokens.gathers import group_sum, take
from skimba.tokens.once import once
from skimba.tokens.walks import Grid, full_walk, moves


@dataclass(frozen=True, eq=False)
class ScanOrder:
    """One scan over the tokens that are left.

    Attributes:
        missing: ``(b l)`` float32, number of positions without a token between a visited token and the one visited before it
            (0 for the first, whose state is zero anyway); None if no token is gone.
        size: ``(b l)`` float32, number of positions that a visited token owns; None if every token owns only its own.
        index: ``(b l)`` or ``(l)`` int32, the token that step j visits; None if the scan follows the sequence.
        reverse: run from the last step to the first. ``missing`` then counts towards the following token.
    """

    missing: Tensor | None = None
    size: Tensor | None = None
    index: Tensor | None = None
    reverse: bool = False

    def window(self, steps: slice) -> ScanOrder:
        """The scan over those tokens alone; it follows the sequence."""
        assert self.index is None
        missing, size = (None if x is None else x[:, steps] for x in (self.missing, self.size))
        return replace(self, missing=missing, size=size)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of a sequence sit. It changes only when tokens are removed.

    The full sequence holds the cells of the grid in raster order and, at any places among them, extra tokens: a class token,
    registers. Extra tokens are never removed and own no position but their own.

    Attributes:
        grid: ``(h, w)`` of the image, ``(t, h, w)`` of a clip.
        extras: positions of the extra tokens in the full sequence, ascending.
        position: ``(b l)`` int64: the position of each token in the full sequence, ascending unless :meth:`Tokens.rearrange`
            changed it; None while dense.
        owner: ``(b L)`` int64: the token (0 … l-1) that owns each position; None if positions have no owner.
        alignment: what layers do about the positions that are gone.
        device: of the scan orders.
    """

    grid: Grid
    extras: tuple[int, ...] = ()
    position: Tensor | None = None
    owner: Tensor | None = None
    alignment: Alignment = NONE
    device: torch.device | None = None

    @property
    def full_length(self) -> int:
        return math.prod(self.grid) + len(self.extras)

    @property
    def length(self) -> int:
        return self.full_length if self.position is None else self.position.shape[1]

    @property
    def image_count(self) -> int:
        """Tokens now in the sequence, without extra ones."""
        return self.length - len(self.extras)

    def positions(self, batch: int, device: torch.device) -> Tensor:
        """``(b l)`` position of every token, also while dense."""
        if self.position is not None:
            return self.position
        return torch.arange(self.full_length, device=device).expand(batch, -1)

    def extra_places(self, batch: int, device: torch.device) -> Tensor:
        """``(b x)`` int64: places of the extra tokens in the present sequence, ascending."""
        extras = torch.tensor(self.extras, dtype=torch.int64, device=device)
        if self.position is None:
            return extras.expand(batch, -1)
        return (self.position[:, None] == extras[:, None]).byte().argmax(2)

    def image_places(self, batch: int, device: torch.device) -> Tensor:
        """``(b m)`` int64: places of the image tokens in the present sequence, ascending."""
        place = torch.arange(self.image_count, device=device).expand(batch, -1)
        if not self.extras:
            return place
        extra = self.extra_places(batch, device)
        before = extra - torch.arange(len(self.extras), device=device)  # image tokens before each extra one
        return place + (place[:, :, None] >= before[:, None]).sum(2)

    def extras_before(self, batch: int, device: torch.device) -> Tensor:
        """``(b l)`` int64: how many extra tokens of the full sequence stand before the position of each token."""
        position = self.positions(batch, device)
        extras = torch.tensor(self.extras, dtype=torch.int64, device=device)
        return (position[..., None] > extras).sum(-1)

    def image_part(self, full: Tensor) -> Tensor:
        """``(b L ...)`` values of all positions -> ``(b h w ...)`` those of the image, or ``(b t h w ...)``."""
        if self.extras:
            edges = (-1, *self.extras, self.full_length)
            parts = [full[:, a + 1 : b] for a, b in pairwise(edges)]
            full = torch.cat(parts, 1)
        return full.unflatten(1, self.grid)

    @once
    def size(self) -> Tensor | None:
        """``(b l)`` float32: how many positions each token owns; None if every token owns just its own."""
        if self.owner is None:
            return None
        return group_sum(torch.ones_like(self.owner, dtype=torch.float32), self.owner, self.length)

    @once
    def owner_source(self) -> Tensor | None:
        """``(b L)`` int32: every position shows its owner (see :mod:`skimba.ops.source`); None without owners."""
        return None if self.owner is None else self.owner.int()

    @once
    def position_source(self) -> Tensor | None:
        """``(b L)`` int32: positions of present tokens show these, the others -1; None while dense."""
        if self.position is None:
            return None
        rank = torch.arange(self.length, dtype=torch.int32, device=self.position.device).expand_as(self.position)
        source = rank.new_full((rank.shape[0], self.full_length), -1)
        return source.scatter(1, self.position, rank)

    @once
    def extra_range(self) -> tuple[int, int]:
        """Places between which all extra tokens of the batch stand: as narrow as can be where they are one class token that
        can be looked up at no cost, else the whole sequence."""
        if len(self.extras) != 1:
            return 0, self.length - 1
        if self.position is None:
            return self.extras[0], self.extras[0]
        if not _is_readable(self.position) or len(self.position) == 0:
            return 0, self.length - 1
        place = self.extra_places(self.position.shape[0], self.position.device)
        return int(place.min()), int(place.max())

    @once
    def line_orders(self) -> tuple[ScanOrder, ScanOrder]:
        """The two scans of a bidirectional model: along the sequence, and back."""
        if self.position is None:
            return ScanOrder(), ScanOrder(reverse=True)
        between = (self.position.diff(dim=1) - 1).float()  # (b l-1)
        zero = between.new_zeros(between.shape[0], 1)
        return (
            ScanOrder(missing=torch.cat([zero, between], 1), size=self.size),
            ScanOrder(missing=torch.cat([between, zero], 1), size=self.size, reverse=True),
        )

    @once
    def _orders(self) -> dict[str, ScanOrder]:
        return {}

    @once
    def _moves(self) -> dict[str, Tensor]:
        return {}

    def order(self, walk: str) -> ScanOrder:
        """The scan along a walk over the grid, a key of :data:`~skimba.tokens.walks.WALKS`.

        A walk that passes padding visits more tokens than there are: padding is numbered from ``length`` on, and never removed.
        """
        known = self._orders
        if walk not in known:
            known[walk] = self._order(walk)
        return known[walk]

    def move(self, walk: str) -> Tensor:
        """``(b l)`` or ``(l)`` int64: how each step of a continuous walk came to its token (:func:`~skimba.tokens.walks.moves`).
        Without extra tokens."""
        known = self._moves
        if walk not in known:
            index = self.order(walk).index
            assert index is not None
            entered = torch.tensor(_moves(walk, self.grid), dtype=torch.int64, device="cpu").to(self.device)
            known[walk] = entered[index.long() if self.position is None else take(self.position, index.long())]
        return known[walk]

    def _order(self, walk: str) -> ScanOrder:
        order = walk_steps(walk, self.grid, self.extras).to(self.device)
        if self.position is None:
            return ScanOrder(index=order.int())
        full_step = order.argsort()  # the step at which the full scan visits each position
        position, size = self.position, self.size
        if padding := order.shape[0] - self.full_length:
            more = torch.arange(self.full_length, order.shape[0], device=order.device).expand(position.shape[0], -1)
            position = torch.cat([position, more], 1)
            size = None if size is None else F.pad(size, (0, padding), value=1.0)
        step, index = full_step[position].sort(dim=1)  # (b l)
        missing = torch.cat([torch.zeros_like(step[:, :1]), step.diff(dim=1) - 1], 1).float()
        return ScanOrder(missing=missing, size=None if size is None else take(size, index), index=index.int())

    def along(self, walk: str, source: Tensor) -> Tensor:
        """``source (b L)`` of all positions (see :mod:`skimba.ops.source`) in a walk's order, with its padding: ``(b S)``."""
        order = walk_steps(walk, self.grid, self.extras).to(source.device)
        padding = torch.arange(order.shape[0] - self.full_length, dtype=source.dtype, device=source.device)
        return torch.cat([source, (self.length + padding).expand(source.shape[0], -1)], 1)[:, order]


def walk_steps(walk: str, grid: Grid, extras: tuple[int, ...]) -> Tensor:
    """``(L)`` int64 on the CPU, made anew: :func:`~skimba.tokens.walks.full_walk` as a tensor."""
    return torch.tensor(_full_walk(walk, grid, extras), dtype=torch.int64, device="cpu")


def _full_walk_plain(walk: str, grid: Grid, extras: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(full_walk(walk, grid, extras).tolist())


def _moves_plain(walk: str, grid: Grid) -> tuple[int, ...]:
    return tuple(moves(walk, grid).tolist())


# A compiler takes their plain numbers as constants instead of looking into them.
_full_walk: Callable[[str, Grid, tuple[int, ...]], tuple[int, ...]] = torch.compiler.assume_constant_result(
    _full_walk_plain
)
_moves: Callable[[str, Grid], tuple[int, ...]] = torch.compiler.assume_constant_result(_moves_plain)


def _is_readable(x: Tensor) -> bool:
    """Whether values can be read without synchronising and without baking them into a trace."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return type(x) is Tensor and x.device.type == "cpu" and not traced
