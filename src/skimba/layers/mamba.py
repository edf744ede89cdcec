"""The two mixers: Vim's bidirectional Mamba and PlainMamba's four scans over a grid.

Parameter names are those of the official state dicts: they are an API.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from skimba.layers.alignment import align_conv1d, align_conv2d
from skimba.layers.mixer import SCAN_COST, OneScanMixer, ScanParts, TimeProjection, decay_rates, sum_scans
from skimba.ops import selective_scan
from skimba.tokens import Layout, ScanOrder, ScanRecord, take


class VimMixer(OneScanMixer):
    """Bidirectional Mamba (Vim, arXiv 2401.09417, algorithm 1; github hustvl/Vim, ``bimamba_type="v2"``).

    Both directions share ``in_proj`` and ``out_proj``; the backward one has its own convolution, projections, A and D (``_b``).

    Args:
        halved: whether the mean of the directions goes on (Vim, Mamba-Reg), or their sum (VideoMamba).
    """

    walks = ("rows", "rows_back")

    def __init__(
        self, embed_dim: int, state_size: int = 16, kernel_size: int = 4, expand: int = 2, halved: bool = True
    ) -> None:
        super().__init__(embed_dim, state_size, expand, bias=False)
        self.halved = halved
        self.conv1d = nn.Conv1d(self.inner, self.inner, kernel_size, groups=self.inner)
        self.A_b_log = decay_rates(self.inner, state_size)
        self.D_b = nn.Parameter(torch.ones(self.inner))
        self.conv1d_b = nn.Conv1d(self.inner, self.inner, kernel_size, groups=self.inner)
        self.x_proj_b = nn.Linear(self.inner, self.rank + 2 * state_size, bias=False)
        self.dt_proj_b = TimeProjection(self.rank, self.inner)

    def forward(
        self, hidden: Tensor, layout: Layout, record: bool = False, extras_only: bool = False
    ) -> tuple[Tensor, ScanRecord | None]:
        """``hidden (b l d)`` -> ``(b l d)``, and what the scans computed if ``record``.

        With ``extras_only`` that of the extra tokens ``(b x d)``, and nothing is recorded.
        """
        if extras_only:
            return self._extra_tokens(hidden, layout), None
        x, z = self.in_proj(hidden).chunk(2, dim=-1)  # (b l e) each
        forward, backward = layout.line_orders
        ys, deltas = zip(
            self._scan(x, z, layout, forward, self._forward_parts),
            self._scan(x, z, layout, backward, self._backward_parts),
            strict=True,
        )
        out = self.out_proj(sum_scans(ys, keep_parts=record))
        out = self._scaled(out)
        if not record:
            return out, None
        return out, ScanRecord(ys, deltas, (self.dt_proj.bias, self.dt_proj_b.bias), z)

    def multiply_adds(self, layout: Layout, outputs: int, exact: bool) -> int:
        """Published: as if there were one direction (github hustvl/Vim and those who compare with it)."""
        directions, kernel, width = 2 if exact else 1, self.conv1d.kernel_size[0], self.in_proj.in_features
        length, steps = layout.length, directions * layout.length
        if outputs < length and len(layout.extras) == 1:
            # To one token alone, both directions together pass every token once and itself twice.
            steps = directions * (length + 1) // 2
        conv = directions * (self._conv_length(layout, exact) + kernel - 1) * kernel * self.inner
        projections = (length + outputs) * width * self.inner + outputs * self.inner * width
        return projections + conv + self._scan_adds(steps) + 2 * steps * self.inner

    def _extra_tokens(self, hidden: Tensor, layout: Layout) -> Tensor:
        """The extra tokens' output ``(b x d)`` alone: of the others no gate and no output is computed, and a scan ends where
        no image of the batch has a class token further on."""
        rank = layout.extra_places(hidden.shape[0], hidden.device)
        x, z = self._project(hidden, rank)
        forward, backward = layout.line_orders
        first, last = layout.extra_range
        y, _ = self._scan(x, None, layout, forward, self._forward_parts, slice(last + 1))
        y_b, _ = self._scan(x, None, layout, backward, self._backward_parts, slice(first, None))
        y = take(y, rank) + take(y_b, rank - first)
        return self._scaled(self.out_proj(y * F.silu(z)))

    def _project(self, hidden: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        """``x (b l e)`` of all tokens and ``z (b x e)`` of those at ``rank``."""
        if not isinstance(self.in_proj, nn.Linear) or is_traceable_wrapper_subclass(self.in_proj.weight):
            x, z = self.in_proj(hidden).chunk(2, dim=-1)  # quantised or wrapped: only the whole can be asked for
            return x, take(z, rank)
        weight_x, weight_z = self.in_proj.weight.chunk(2)
        return F.linear(hidden, weight_x), F.linear(take(hidden, rank), weight_z)

    def _scaled(self, out: Tensor) -> Tensor:
        """The mean of the directions, or their sum; on the narrower side of the projection."""
        return out.mul_(0.5) if self.halved else out

    @property
    def _forward_parts(self) -> ScanParts:
        return ScanParts(self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)

    @property
    def _backward_parts(self) -> ScanParts:
        return ScanParts(self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)

    def _scan(
        self,
        x: Tensor,
        z: Tensor | None,
        layout: Layout,
        order: ScanOrder,
        parts: ScanParts,
        steps: slice | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One direction, over those ``steps`` alone if they are given: the output ``(b l e)``, gated if ``z`` is given, and the
        time steps before softplus and bias."""
        weight, bias1d = parts.conv1d.weight.squeeze(1), parts.conv1d.bias
        assert bias1d is not None
        c = align_conv1d(layout, x, weight, bias1d, order.reverse)  # (b l e)
        if steps is not None:
            c, order = c[:, steps], order.window(steps)
        dt, B, C = parts.x_proj(c).split_with_sizes([self.rank, self.state_size, self.state_size], dim=-1)
        delta, bias = parts.dt_proj(dt), parts.dt_proj.bias
        time = layout.alignment.scan.time(order, delta, bias)
        y = selective_scan(c, delta, parts.A_log, B, C, parts.D, z, bias, reverse=order.reverse, log_A=True, **time)
        return y, delta


class PlainMambaMixer(OneScanMixer):
    """Four scans along continuous walks over the grid (PlainMamba, arXiv 2403.17695; github ChenhongyiYang/PlainMamba)."""

    walks = ("snake", "snake_up", "snake_columns", "snake_columns_left")

    def __init__(self, embed_dim: int, state_size: int = 16, kernel_size: int = 7, expand: int = 2) -> None:
        super().__init__(embed_dim, state_size, expand, bias=True)
        self.direction_Bs = nn.Parameter(torch.empty(5, state_size))
        nn.init.trunc_normal_(self.direction_Bs, std=0.02)
        self.conv2d = nn.Conv2d(self.inner, self.inner, kernel_size, padding=kernel_size // 2, groups=self.inner)

    def forward(self, hidden: Tensor, layout: Layout, record: bool = False) -> tuple[Tensor, ScanRecord | None]:
        """``hidden (b l d)`` -> ``(b l d)``, and what the scans computed if ``record``."""
        x, z = self.in_proj(hidden).chunk(2, dim=-1)  # (b l e) each
        assert self.conv2d.bias is not None
        c = align_conv2d(layout, x, self.conv2d.weight.squeeze(1), self.conv2d.bias)
        dt, B, C = self.x_proj(c).split_with_sizes([self.rank, self.state_size, self.state_size], dim=-1)
        delta = self.dt_proj(dt)
        delta_bias = 2 * self.dt_proj.bias  # compat: the official code adds it twice, in dt_proj and in the scan
        ys = [self._scan(c, delta, delta_bias, B, C, layout, walk) for walk in self.walks]
        gate = F.silu(z)
        out = self.out_proj(sum_scans(ys, keep_parts=record) * gate)
        if not record:
            return out, None
        return out, ScanRecord(tuple(y * gate for y in ys), (delta,), (delta_bias,), z)

    def multiply_adds(self, layout: Layout, outputs: int, exact: bool) -> int:
        """Both conventions count all four scans."""
        length, width = layout.length, self.in_proj.in_features
        conv = self._conv_length(layout, exact) * self.inner * self.conv2d.weight[0].numel()
        more_scans = (len(self.walks) - 1) * SCAN_COST * length * self.inner * self.state_size
        return 3 * length * width * self.inner + conv + self._scan_adds(length) + more_scans

    def _scan(
        self,
        c: Tensor,
        delta: Tensor,
        delta_bias: Tensor,
        B: Tensor,
        C: Tensor,
        layout: Layout,
        walk: str,
    ) -> Tensor:
        """One walk: the ungated output ``(b l e)`` in sequence order."""
        order = layout.order(walk)
        time = layout.alignment.scan.time(order, delta, delta_bias)
        # compat: only the input is brought into the order of the walk; delta, B and C stay in raster order (step j of the
        # walk uses those of the j-th token), as the official weights were trained.
        return selective_scan(
            c,
            delta,
            self.A_log,
            B + self.direction_Bs[layout.move(walk)].to(B.dtype),
            C,
            self.D,
            None,
            delta_bias,
            order=order.index,
            log_A=True,
            **time,
        )
