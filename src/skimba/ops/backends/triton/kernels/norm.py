"""Addition and RMS norm: Triton's language. A program has whole rows; past their end it reads zeros, which change no sum."""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Sizes(NamedTuple):
    """Rows, and how wide they are."""

    rows: Any
    width: Any


@triton.jit
def norm(x, residual, weight, y, total, sizes, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """``total = x + residual`` and its norm ``y``."""
    row, d = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    there = (row < sizes.rows)[:, None] & (d < sizes.width)[None, :]
    at = (row * sizes.width)[:, None] + d[None, :]
    value = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    if residual is not None:
        value += tl.load(residual + at, mask=there, other=0.0)
    scale = tl.rsqrt(tl.sum(value * value, 1) / sizes.width + eps)
    factor = tl.load(weight + d, mask=d < sizes.width, other=0.0)
    tl.store(total + at, value, mask=there)
    tl.store(y + at, value * scale[:, None] * factor[None, :], mask=there)


@triton.jit
def norm_backward(
    total, weight, grad, grad_total, to_x, to_weight, sizes, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Every so many rows: ``to_x``, and their sum of what reaches the weight, ``to_weight (programs, d)``."""
    d = tl.arange(0, WIDTH)
    factor = tl.load(weight + d, mask=d < sizes.width, other=0.0)[None, :]
    sums = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(tl.program_id(0) * ROWS, sizes.rows, tl.num_programs(0) * ROWS):
        row = first + tl.arange(0, ROWS).to(tl.int64)
        there = (row < sizes.rows)[:, None] & (d < sizes.width)[None, :]
        at = (row * sizes.width)[:, None] + d[None, :]
        value = tl.load(total + at, mask=there, other=0.0)
        to_y = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(value * value, 1) / sizes.width + eps)[:, None]
        unit = value * scale
        sums += to_y * unit
        to_unit = to_y * factor
        to_value = scale * (to_unit - unit * (tl.sum(to_unit * unit, 1) / sizes.width)[:, None])
        if grad_total is not None:
            to_value += tl.load(grad_total + at, mask=there, other=0.0)
        tl.store(to_x + at, to_value, mask=there)
    tl.store(to_weight + tl.program_id(0) * sizes.width + d, tl.sum(sums, 0), mask=d < sizes.width)
