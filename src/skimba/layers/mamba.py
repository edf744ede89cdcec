"""The two mixers: Vim's bidirectional Mamba and PlainMamba's four scans over a grid.

Parameter names are those of the official state dicts: they are an API.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from skimba.layers.alignment import align_conv1d, align_conv2d, conv_source
from skimba.ops import selective_scan
from skimba.tokens import Layout, ScanOrder, ScanRecord, take

SCAN_COST = 9  # multiply-adds per token, channel and state, as all papers of the field count it
DELTA_MIN, DELTA_MAX, DELTA_FLOOR = 0.001, 0.1, 1e-4  # range of the initial time step (Mamba, arXiv 2312.00752)


def decay_rates(channels: int, state_size: int) -> nn.Parameter:
    """``A_log (e n)``, initialised to log(1 … n) (S4D-real)."""
    return nn.Parameter(torch.arange(1, state_size + 1, dtype=torch.float32).log().repeat(channels, 1))


def sum_scans(parts: Sequence[Tensor], keep_parts: bool) -> Tensor:
    """The sum of the scans' outputs, in place of the first unless they are still wanted: a new tensor of that size costs more
    than the addition."""
    first, second, *others = parts
    total = first + second if keep_parts else first.add_(second)
    for part in others:
        total.add_(part)
    return total


class TimeProjection(nn.Linear):
    """``(b l r)`` -> time steps ``(b l e)`` before the bias, which the scan adds in float32.

    Initialised so that softplus(bias) is log-uniform in DELTA_MIN … DELTA_MAX.
    """

    bias: nn.Parameter

    def __init__(self, rank: int, channels: int) -> None:
        super().__init__(rank, channels)
        nn.init.uniform_(self.weight, -(rank**-0.5), rank**-0.5)
        low, high = math.log(DELTA_MIN), math.log(DELTA_MAX)
        delta = (torch.rand(channels) * (high - low) + low).exp().clamp(min=DELTA_FLOOR)
        with torch.no_grad():
            self.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # inverse of softplus

    def forward(self, input: Tensor) -> Tensor:
        """The product alone."""
        return F.linear(input, self.weight)


class ScanParts(NamedTuple):
    """The parameters of one scan and of the convolution before it."""

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: TimeProjection
    A_log: Tensor
    D: Tensor


class Mixer(nn.Module):
    """What all mixers have: the projections, and the parameters of a scan.

    A, D and the time step's bias stay float32 when the model is cast to bfloat16 or float16: the recurrence multiplies their
    rounding errors. So do the depthwise convolutions' few weights, which the kernels take in float32.
    """

    FLOAT32 = re.compile(r"A(_b)?_log(_\d)?|D(_b|_\d)?|dt_proj(_b|_\d)?\.bias|conv[12]d(_b|_\d)?\.(weight|bias)")

    def __init__(self, embed_dim: int, state_size: int, expand: int, bias: bool) -> None:
        super().__init__()
        self.inner, self.state_size, self.rank = expand * embed_dim, state_size, math.ceil(embed_dim / 16)
        self.in_proj = nn.Linear(embed_dim, 2 * self.inner, bias=bias)

    def multiply_adds(self, layout: Layout, outputs: int, exact: bool) -> int:
        """What the mixer computes for one image, in multiply-adds.

        Args:
            layout: of the tokens that go in.
            outputs: tokens that come out.
            exact: count what is computed; otherwise what the papers' tables count.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its multiply-adds")

    def _scan_adds(self, steps: int) -> int:
        """``x_proj``, ``dt_proj`` and a scan over so many tokens."""
        projections = self.rank + 2 * self.state_size + self.rank
        return steps * self.inner * (projections + SCAN_COST * self.state_size)

    def _conv_length(self, layout: Layout, exact: bool) -> int:
        """Positions that the convolution visits."""
        return layout.full_length if exact and conv_source(layout) is not None else layout.length

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mixer:
        kept = {id(p) for name, p in self.named_parameters() if self.FLOAT32.fullmatch(name)}

        def keep_float32(x: Tensor) -> Tensor:
            out = fn(x)
            narrowed = id(x) in kept and out.dtype in (torch.bfloat16, torch.float16)
            return x.to(out.device, torch.float32) if narrowed else out

        return super()._apply(keep_float32, recurse)


class OneScanMixer(Mixer):
    """A mixer with the parameters of one scan, under their plain names."""

    def __init__(self, embed_dim: int, state_size: int, expand: int, bias: bool) -> None:
        super().__init__(embed_dim, state_size, expand, bias)
        self.A_log = decay_rates(self.inner, state_size)
        self.D = nn.Parameter(torch.ones(self.inner))
        self.x_proj = nn.Linear(self.inner, self.rank + 2 * state_size, bias=False)
        self.dt_proj = TimeProjection(self.rank, self.inner)
        self.out_proj = nn.Linear(self.inner, embed_dim, bias=bias)


class Block(nn.Module):
    """A block maps :class:`~skimba.tokens.Tokens` to Tokens: ``block(tokens, record)``, with what its scans computed if
    ``record``. Where a head reads the extra tokens alone, the last block is asked for them: ``block(tokens, extras_only=True)``.

    Attributes:
        mixer: what moves values between tokens.
    """

    mixer: nn.Module


class VimMixer(OneScanMixer):
    """Bidirectional Mamba (Vim, arXiv 2401.09417, algorithm 1; github hustvl/Vim, ``bimamba_type="v2"``).

    Both directions share ``in_proj`` and ``out_proj``; the backward one has its own convolution, projections, A and D (``_b``).

    Args:
        halved: whether the mean of the directions goes on (Vim, Mamba-Reg), or their sum (VideoMamba).
    """

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
        return out, ScanRecord(ys, deltas, (self.dt_proj.bias, self.dt_proj_b.bias))

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
        steps: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """One direction over those ``steps``: the output ``(b l e)``, gated if ``z`` is given, and the time steps before
        softplus and bias."""
        weight, bias1d = parts.conv1d.weight.squeeze(1), parts.conv1d.bias
        assert bias1d is not None
        c = align_conv1d(layout, x, weight, bias1d, order.reverse)[:, steps]  # (b l e)
        order = order.window(steps)
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
        return out, ScanRecord(tuple(y * gate for y in ys), (delta,), (delta_bias,))

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
