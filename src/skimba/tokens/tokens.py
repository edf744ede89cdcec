"""The state of a model between two blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.tokens.alignment import Alignment
from skimba.tokens.gathers import group_sum, share_of_group, take
from skimba.tokens.layout import Layout


@dataclass(frozen=True, eq=False)
class ScanRecord:
    """What the scans of one block computed, for importance functions; all in sequence order.

    Attributes:
        y: for each scan the gated output ``(b l e)``.
        raw_delta: for each set of time steps ``(b l e)`` before softplus (Vim: one per direction; PlainMamba: one in all).
        delta_bias: what is added to each before softplus, ``(e)``.
        z: ``(b l e)`` the gate of all scans before its silu; None if not recorded.
    """

    y: tuple[Tensor, ...]
    raw_delta: tuple[Tensor, ...]
    delta_bias: tuple[Tensor, ...]
    z: Tensor | None = None

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
    def grid(self) -> tuple[int, ...]:
        return self.layout.grid

    @property
    def image_places(self) -> Tensor:
        """``(b m)`` places of the image tokens, ascending."""
        return self.layout.image_places(self.x.shape[0], self.x.device)

    @property
    def extra_places(self) -> Tensor:
        """``(b x)`` places of the extra tokens, ascending."""
        return self.layout.extra_places(self.x.shape[0], self.x.device)

    @property
    def is_extra(self) -> Tensor:
        """``(b l)`` bool: whether each token is an extra one."""
        none = torch.zeros(self.x.shape[:2], dtype=torch.bool, device=self.x.device)
        return none.scatter(1, self.extra_places, True) if self.layout.extras else none

    @property
    def extras_before(self) -> Tensor:
        """``(b l)`` how many extra tokens stand before each token."""
        return self.layout.extras_before(self.x.shape[0], self.x.device)

    def images(self, rows: Tensor) -> Tokens:
        """The images ``rows (i)`` of the batch."""
        layout, scan = self.layout, self.scan
        if layout.position is not None:
            owner = None if layout.owner is None else layout.owner[rows]
            layout = replace(layout, position=layout.position[rows], owner=owner)
        if scan is not None:
            y, raw_delta = (tuple(part[rows] for part in parts) for parts in (scan.y, scan.raw_delta))
            scan = replace(scan, y=y, raw_delta=raw_delta, z=None if scan.z is None else scan.z[rows])
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
        share = share_of_group(size, heir, kept.shape[1])
        share_in_x = share if worth is None else share_of_group(size * worth, heir, kept.shape[1])

        def mean(x: Tensor, share: Tensor) -> Tensor:
            return group_sum(x * share[..., None], heir, kept.shape[1]).to(x.dtype)

        residual = None if self.residual is None else mean(self.residual, share)
        return replace(self.keep(kept, heir, alignment), x=mean(self.x, share_in_x), residual=residual)

    def rearrange(self, slots: Tensor, index: Tensor) -> Tokens:
        """Put token ``index[i, j]`` of image ``i`` into place ``slots[i, j]``; tokens not named stay.

        Args:
            slots, index: ``(b m)`` int64, the same places in two orders.
        """
        order = torch.arange(self.x.shape[1], device=index.device).expand(index.shape[0], -1).scatter(1, slots, index)
        owner = None if self.owner is None else take(order.argsort(dim=1), self.owner)
        layout = replace(self.layout, position=take(self.position, order), owner=owner)
        residual = None if self.residual is None else take(self.residual, order)
        return Tokens(take(self.x, order), layout, residual)

    def scatter(self, x: Tensor | None = None) -> Tensor:
        """Back to the full grid: every image position shows the token that owns it, or zeros if none does.

        Args:
            x: ``(b l d)`` what to scatter; the stream if None.

        Returns:
            ``(b h w d)``, or ``(b t h w d)``.
        """
        x = self.stream if x is None else x
        layout = self.layout
        if layout.owner is not None:
            full = take(x, layout.owner)
        elif layout.position is not None:
            full = group_sum(x, layout.position, layout.full_length)
        else:
            full = x
        return layout.image_part(full)
