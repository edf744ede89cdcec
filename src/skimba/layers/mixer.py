"""What all mixers have in common: projections, the parameters of a scan, and how many multiply-adds they say they make.

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

from skimba.layers.alignment import conv_source
from skimba.tokens import Layout

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

    Attributes:
        walks: the walk of each scan, keys of :data:`skimba.tokens.walks.WALKS`, in the order in which they run.
    """

    walks: tuple[str, ...]
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
