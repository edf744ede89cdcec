"""LocalVim's mixer: four walks over the grid, in windows too. Parameter names are those of the official state dicts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skimba.layers.alignment import conv_source, pool
from skimba.layers.mixer import Mixer, ScanParts, TimeProjection, decay_rates, sum_scans
from skimba.ops import causal_conv1d, selective_scan
from skimba.tokens import Layout, ScanRecord, take
from skimba.tokens.walks import full_walk

KERNEL = 4
# compat: the official code misreads these walks on their way back (the same on square grids, as all published models have).
READ_BACK = {"columns": "columns_misread", "columns_back": "columns_misread_back"}


class ChannelGate(nn.Module):
    """A factor in 0 … 1 for each channel of ``(b l e)``, from the mean over the positions."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inner, eps=1e-5)
        self.global_reduce = nn.Linear(inner, inner // 8)
        self.channel_select = nn.Linear(inner // 8, inner)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        mean = pool(layout, self.norm(x.to(self.norm.weight.dtype)))  # (b e)
        return self.channel_select(F.gelu(self.global_reduce(mean))).sigmoid()[:, None].to(x.dtype)


class LocalMixer(Mixer):
    """Four scans along walks over the grid (LocalVim, arXiv 2403.09338; github hunto/LocalMamba), each with its own convolution,
    projections, A and D (``_0`` … ``_3``), gated by channel and added.

    Args:
        walks: keys of :data:`skimba.tokens.walks.WALKS`.
    """

    def __init__(self, embed_dim: int, walks: Sequence[str], state_size: int = 16, expand: int = 2) -> None:
        super().__init__(embed_dim, state_size, expand, bias=False)
        self.walks = tuple(walks)
        for number in range(len(self.walks)):
            parts = {
                "conv1d": nn.Conv1d(self.inner, self.inner, KERNEL, groups=self.inner),
                "x_proj": nn.Linear(self.inner, self.rank + 2 * state_size, bias=False),
                "dt_proj": TimeProjection(self.rank, self.inner),
            }
            for name, module in parts.items():
                self.add_module(f"{name}_{number}", module)
            self.register_parameter(f"A_log_{number}", decay_rates(self.inner, state_size))
            self.register_parameter(f"D_{number}", nn.Parameter(torch.ones(self.inner)))
        self.attn = ChannelGate(self.inner)
        self.out_proj = nn.Linear(self.inner, embed_dim, bias=False)

    def forward(
        self, hidden: Tensor, layout: Layout, record: bool = False, extras_only: bool = False
    ) -> tuple[Tensor, ScanRecord | None]:
        """``hidden (b l d)`` -> ``(b l d)``, and what the scans computed if ``record``; with ``extras_only`` ``(b x d)``."""
        x, z = self.in_proj(hidden).chunk(2, dim=-1)  # (b l e) each
        ys, deltas = zip(*(self._scan(x, z, layout, number, record) for number in range(len(self.walks))), strict=True)
        total = sum_scans(ys, keep_parts=record)
        if extras_only:
            return self.out_proj(take(total, layout.extra_places(hidden.shape[0], hidden.device))), None
        if not record:
            return self.out_proj(total), None
        biases = tuple(self._parts(number).dt_proj.bias for number in range(len(self.walks)))
        return self.out_proj(total), ScanRecord(ys, deltas, biases, z)

    def multiply_adds(self, layout: Layout, outputs: int, exact: bool) -> int:
        """Both conventions count all four walks."""
        width, length = self.in_proj.in_features, layout.length
        total = 2 * length * width * self.inner + outputs * self.inner * width
        for walk in self.walks:
            padding = len(full_walk(walk, layout.grid, layout.extras)) - layout.full_length
            total += (self._conv_length(layout, exact) + padding + KERNEL - 1) * KERNEL * self.inner
            total += self._scan_adds(length + padding) + 2 * (length + padding) * self.inner
            total += 2 * self.inner * (self.inner // 8)
        return total

    def _parts(self, number: int) -> ScanParts:
        names = ("conv1d", "x_proj", "dt_proj", "A_log", "D")
        return ScanParts(*(getattr(self, f"{name}_{number}") for name in names))

    def _scan(self, x: Tensor, z: Tensor, layout: Layout, number: int, record: bool) -> tuple[Tensor, Tensor]:
        """One walk: the gated output ``(b l e)``, and the time steps before softplus and bias, both in sequence order."""
        parts, walk, length = self._parts(number), self.walks[number], x.shape[1]
        order = layout.order(walk)
        assert order.index is not None
        assert parts.conv1d.bias is not None
        index = order.index.expand(x.shape[0], -1)
        if padding := index.shape[1] - length:  # compat: padding of windows is convolved and scanned like any token
            x, z = (F.pad(part, (0, 0, 0, padding)) for part in (x, z))
        source = conv_source(layout)
        shown = index if source is None else layout.along(walk, source)
        c = causal_conv1d(x, parts.conv1d.weight.squeeze(1), parts.conv1d.bias, source=shown.contiguous())
        projected = parts.x_proj(c)
        # Only the narrow side is copied into the order of the walk; c and z are read in that order by the scan itself.
        dt, B, C = take(projected, index.long()).split_with_sizes([self.rank, self.state_size, self.state_size], dim=-1)
        delta, bias = parts.dt_proj(dt), parts.dt_proj.bias
        time = layout.alignment.scan.time(order, delta, bias)
        y = selective_scan(c, delta, parts.A_log, B, C, parts.D, z, bias, order=index.contiguous(), log_A=True, **time)
        if walk in READ_BACK and layout.grid[-1] != layout.grid[-2]:
            put = layout.order(READ_BACK[walk]).index
            assert put is not None
            y = take(y, take(index.long(), put.long().expand_as(index).argsort(dim=1)))
        y = y[:, :length]
        y = y * self.attn(y, layout)
        raw = parts.dt_proj(projected[:, :length, : self.rank]) if record else delta
        return y, raw
