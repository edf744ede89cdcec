"""Depthwise convolutions with SiLU over a grid, which a sequence is one row of: Triton's language.

With a ``source`` the grid shows tokens, and a token gets the mean over the positions that show it. Those of each token stand in
a list, so that a program sums them up by itself: no atomics, and no full sequence in between.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from skimba.ops.backends.triton.kernels.functions import only_if, sigmoid, silu_slope


class Grid(NamedTuple):
    """What is convolved.

    Attributes:
        x: ``(tensor, strides of batch, rows and columns)``; with a source ``(tensor, strides of batch and tokens, 0)``.
        weight: ``(e, taps)``. bias: ``(e)``.
        source: ``(b, height * width)`` or None.
        positions, first: with a source, the positions in the order of their tokens, as ``(b, height * width)``, and where those
            of each token begin, ``(b, tokens + 1)``.
    """

    x: Any
    weight: Any
    bias: Any
    source: Any
    positions: Any
    first: Any


class Sizes(NamedTuple):
    """Tokens (without a source: positions), height and width of the grid, channels."""

    tokens: Any
    height: Any
    width: Any
    channels: Any


@triton.jit
def place_of_program(sizes, rows, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Sample, the numbers of ``rows`` things (tokens or positions) and of channels that this program computes."""
    tiles, groups = tl.cdiv(sizes.channels, CHANNELS), tl.cdiv(rows, ROWS)
    number = tl.program_id(0) // tiles
    e = tl.program_id(0) % tiles * CHANNELS + tl.arange(0, CHANNELS)
    return (number // groups).to(tl.int64), number % groups * ROWS + tl.arange(0, ROWS), e


@triton.jit
def neighbour(sizes, position, inside, down, right):
    """The position so far away, and whether it is in the grid."""
    y, x = position // sizes.width + down, position % sizes.width + right
    there = inside & (y >= 0) & (y < sizes.height) & (x >= 0) & (x < sizes.width)
    return y * sizes.width + x, there


@triton.jit
def shown(grid, sizes, b, position, there, e):
    """The values ``(ROWS, CHANNELS)`` at positions, zeros where there are none, NaN where the source names no token."""
    lanes = (e < sizes.channels)[None, :]
    if grid.source is None:
        y, x = (position // sizes.width).to(tl.int64), (position % sizes.width).to(tl.int64)
        at = b * grid.x[1] + y * grid.x[2] + x * grid.x[3]
        value = tl.load(grid.x[0] + at[:, None] + e[None, :], mask=there[:, None] & lanes, other=0.0)
        return value.to(tl.float32)
    else:
        token = tl.load(grid.source + b * sizes.height * sizes.width + position, mask=there, other=-1)
        is_token = (token >= 0) & (token < sizes.tokens)
        at = b * grid.x[1] + token.to(tl.int64) * grid.x[2]
        value = tl.load(grid.x[0] + at[:, None] + e[None, :], mask=is_token[:, None] & lanes, other=0.0)
        return only_if((is_token | (token == -1))[:, None], value.to(tl.float32))


@triton.jit
def weight_of(grid, sizes, e, tap, TAPS: tl.constexpr):
    count: tl.constexpr = TAPS[0] * TAPS[1]
    if TAPS[4]:  # mirrored
        tap = count - 1 - tap
    return tl.load(grid.weight + e * count + tap, mask=e < sizes.channels, other=0.0)[None, :]


@triton.jit
def convolved(grid, sizes, b, position, inside, e, TAPS: tl.constexpr):
    """Before SiLU. ``TAPS``: height and width of the kernel, zeros above and left of the grid, whether it is mirrored."""
    total = tl.load(grid.bias + e, mask=e < sizes.channels, other=0.0)[None, :] + tl.zeros(
        [position.shape[0], e.shape[0]], tl.float32
    )
    for tap in range(TAPS[0] * TAPS[1]):
        other, there = neighbour(sizes, position, inside, tap // TAPS[1] - TAPS[2], tap % TAPS[1] - TAPS[3])
        total += shown(grid, sizes, b, other, there, e) * weight_of(grid, sizes, e, tap, TAPS)
    return total


@triton.jit
def listed(grid, sizes, b, token):
    """Where the positions of tokens begin in the list, and how many each has."""
    at = grid.first + b * (sizes.tokens + 1) + token
    inside = token < sizes.tokens
    first = tl.load(at, mask=inside, other=0)
    return first, tl.load(at + 1, mask=inside, other=0) - first


@triton.jit
def position_of(grid, sizes, b, token, round, first, count):
    """Of each token the position that it has in this round, and whether it has one."""
    if grid.source is None:
        return token, token < sizes.tokens
    else:
        inside = round < count
        at = grid.positions + b * sizes.height * sizes.width + first + round
        return tl.load(at, mask=inside, other=0), inside


@triton.jit
def convolution(grid, y, sizes, TAPS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """``y (b, tokens, e)``, for a tile of tokens and channels."""
    b, token, e = place_of_program(sizes, sizes.tokens, ROWS, CHANNELS)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    first, count, rounds = token, token, 1
    if grid.source is not None:
        first, count = listed(grid, sizes, b, token)
        rounds = tl.max(count, 0)
    for round in range(rounds):
        position, inside = position_of(grid, sizes, b, token, round, first, count)
        value = convolved(grid, sizes, b, position, inside, e, TAPS)
        total += tl.where(inside[:, None], value * sigmoid(value), 0.0)
    if grid.source is not None:
        total /= tl.maximum(count, 1).to(tl.float32)[:, None]
    there = (token < sizes.tokens)[:, None] & (e < sizes.channels)[None, :]
    tl.store(y + ((b * sizes.tokens + token) * sizes.channels)[:, None] + e[None, :], total, mask=there)


@triton.jit
def gradients_at_positions(
    grid, grad, inner, to_weight, to_bias, sizes, TAPS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """For a tile of positions: ``inner (b, height * width, e)``, the gradient before SiLU; the sums ``(groups, taps, e)`` and
    ``(groups, e)`` of what reaches weight and bias. ``grad``: ``(tensor, strides of batch and tokens)``."""
    positions = sizes.height * sizes.width
    b, position, e = place_of_program(sizes, positions, ROWS, CHANNELS)
    inside, lanes = position < positions, e < sizes.channels
    token, share = position, tl.full([ROWS], 1.0, tl.float32)
    has_token = inside
    if grid.source is not None:
        token = tl.load(grid.source + b * positions + position, mask=inside, other=-1)
        has_token = (token >= 0) & (token < sizes.tokens)
        token = tl.where(has_token, token, 0)
        _, count = listed(grid, sizes, b, token)
        share = 1.0 / tl.maximum(count, 1).to(tl.float32)
    value = convolved(grid, sizes, b, position, has_token, e, TAPS)
    at = b * grad[1] + token.to(tl.int64) * grad[2]
    there = has_token[:, None] & lanes[None, :]
    to_y = tl.load(grad[0] + at[:, None] + e[None, :], mask=there, other=0.0).to(tl.float32)
    to_value = tl.where(there, to_y * share[:, None] * silu_slope(value, sigmoid(value)), 0.0)
    at = ((b * positions + position) * sizes.channels)[:, None] + e[None, :]
    tl.store(inner + at, to_value, mask=inside[:, None] & lanes[None, :])
    group = (tl.program_id(0) // tl.cdiv(sizes.channels, CHANNELS)).to(tl.int64)
    tl.store(to_bias + group * sizes.channels + e, tl.sum(to_value, 0), mask=lanes)
    for tap in range(TAPS[0] * TAPS[1]):
        other, seen = neighbour(sizes, position, inside, tap // TAPS[1] - TAPS[2], tap % TAPS[1] - TAPS[3])
        found = tl.sum(to_value * shown(grid, sizes, b, other, seen, e), 0)
        own = TAPS[0] * TAPS[1] - 1 - tap if TAPS[4] else tap
        tl.store(to_weight + (group * (TAPS[0] * TAPS[1]) + own) * sizes.channels + e, found, mask=lanes)


@triton.jit
def gradients_of_tokens(grid, inner, to_x, sizes, TAPS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """``to_x (b, tokens, e)`` from ``inner``: of each position that shows a token, all that saw it."""
    b, token, e = place_of_program(sizes, sizes.tokens, ROWS, CHANNELS)
    lanes = e < sizes.channels
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    first, count, rounds = token, token, 1
    if grid.source is not None:
        first, count = listed(grid, sizes, b, token)
        rounds = tl.max(count, 0)
    for round in range(rounds):
        position, inside = position_of(grid, sizes, b, token, round, first, count)
        for tap in range(TAPS[0] * TAPS[1]):
            other, there = neighbour(sizes, position, inside, TAPS[2] - tap // TAPS[1], TAPS[3] - tap % TAPS[1])
            at = ((b * sizes.height * sizes.width + other) * sizes.channels)[:, None] + e[None, :]
            value = tl.load(inner + at, mask=there[:, None] & lanes[None, :], other=0.0)
            total += value * weight_of(grid, sizes, e, tap, TAPS)
    there = (token < sizes.tokens)[:, None] & lanes[None, :]
    tl.store(to_x + ((b * sizes.tokens + token) * sizes.channels)[:, None] + e[None, :], total, mask=there)
