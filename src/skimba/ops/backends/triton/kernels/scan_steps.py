"""What a step of the scan reads, and how much time passes in it: Triton's language, for the forward and the backward kernels.

A program is one warp, which runs one tile of channels of one sample. Its state is ``(STATES, CHANNELS)``, in registers: a
thread has several states of four neighbouring channels, so that sums over states and sums over channels take few shuffles.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from skimba.ops.backends.triton.kernels.functions import INFINITY, LOG2E, exp, held_sum, only_if, softplus

LONGEST = tl.constexpr(1e30)


class Operands(NamedTuple):
    """``(tensor, stride of the batch, stride of the tokens)`` each, or None; unit stride on the last of three axes.

    ``gap`` is ``(b l)``, ``gaps`` is ``(b l e)``; of both at most one is given. D and bias are contiguous tensors, and so is A,
    which is ``(n e)`` here: like all tiles of states, so that none has to change hands between the lanes.
    """

    u: Any
    delta: Any
    B: Any
    C: Any
    z: Any
    gap: Any
    gaps: Any
    step: Any
    hold: Any
    missing: Any
    order: Any
    A: Any
    D: Any
    bias: Any


class Sizes(NamedTuple):
    """Of a scan: tokens, channels, states."""

    length: Any
    channels: Any
    states: Any


class Tile(NamedTuple):
    """What a program runs: the sample, the numbers of its channels and states, and their rates, delta_bias and D.

    The rates are A in powers of two, ``A log2(e)``: a second form of them beside would take as many registers again.
    """

    b: Any
    e: Any
    n: Any
    rates: Any
    bias: Any
    skip: Any


class Step(NamedTuple):
    """What one step reads, in float32, and where: its token, the row of u, z and y, the channels that are there."""

    token: Any
    place: Any
    inside: Any
    lanes: Any
    u: Any
    delta: Any
    B: Any
    C: Any
    z: Any
    gap: Any
    step: Any
    hold: Any
    missing: Any


class Times(NamedTuple):
    """Of one step: softplus(delta), Δ, and all time that passes, ``(CHANNELS,)`` each; the number of positions held."""

    plain: Any
    dt: Any
    all: Any
    held: Any


@triton.jit
def row(x, b, t):
    """Address of the row of sample b and token t, 64 bits wide."""
    return x[0] + b * x[1] + t.to(tl.int64) * x[2]


@triton.jit
def token_of(step, length, REVERSE: tl.constexpr):
    if REVERSE:
        return length - 1 - step
    else:
        return step


@triton.jit
def place_of(x, b, token, length, inside):
    """The row of u, z and y: -1 where ``order`` names none."""
    place = token
    if x.order is not None:
        place = tl.load(row(x.order, b, token), mask=inside, other=-1)
        place = tl.where((place >= 0) & (place < length), place, -1)
    return place


@triton.jit
def at_place(x, b, place, e, lanes, NEEDED: tl.constexpr):
    """A row of channels in float32; NaN where ``order`` names no row of a tensor."""
    value = tl.load(row(x, b, place) + e, mask=lanes & (place >= 0), other=0.0).to(tl.float32)
    if NEEDED:
        value = only_if(~lanes | (place >= 0), value)
    return value


@triton.jit
def read_counts(x, b, token, inside, e, lanes):
    """``gap``, ``step``, ``hold`` and ``missing`` of a token; NaN in place of values that are not allowed."""
    gap, step, hold, missing = None, None, None, None
    if x.gap is not None:
        gap = tl.load(row(x.gap, b, token), mask=inside, other=0.0)
        gap = only_if(gap >= 0, gap)
    if x.gaps is not None:
        gap = tl.load(row(x.gaps, b, token) + e, mask=lanes, other=0.0)
        gap = only_if(gap >= 0, gap)
    if x.step is not None:
        step = tl.load(row(x.step, b, token), mask=inside, other=0.0)
        step = only_if((step >= 0) & (step < INFINITY), step)
    if x.hold is not None:
        hold = tl.load(row(x.hold, b, token), mask=inside, other=1.0)
        hold = only_if((hold >= 0) & (hold < INFINITY), hold)
    if x.missing is not None:
        missing = tl.load(row(x.missing, b, token), mask=inside, other=0.0)
        missing = only_if((missing >= 0) & (missing < INFINITY), missing)
    return gap, step, hold, missing


@triton.jit
def read(x, sizes, tile, step, REVERSE: tl.constexpr):
    """A :class:`Step`; past the end zeros."""
    inside = step < sizes.length
    b, e = tile.b, tile.e
    lanes = (e < sizes.channels) & inside
    states = (tile.n < sizes.states) & inside
    token = token_of(step, sizes.length, REVERSE)
    place = place_of(x, b, token, sizes.length, inside)
    u = at_place(x.u, b, place, e, lanes, x.order is not None)
    delta = tl.load(row(x.delta, b, token) + e, mask=lanes, other=0.0).to(tl.float32)
    B = tl.load(row(x.B, b, token) + tile.n, mask=states, other=0.0).to(tl.float32)
    C = tl.load(row(x.C, b, token) + tile.n, mask=states, other=0.0).to(tl.float32)
    z = None
    if x.z is not None:
        z = at_place(x.z, b, place, e, lanes, False)
    gap, factor, hold, missing = read_counts(x, b, token, inside, e, lanes)
    return Step(token, place, inside, lanes, u, delta, B, C, z, gap, factor, hold, missing)


@triton.jit
def times_of(now, tile, previous):
    """The :class:`Times` of a step; ``previous`` is the plain time of the step before. Past the end no time passes.

    An infinite gap is taken as 1e30: it empties the state without a NaN in 0 · infinity.
    """
    plain = softplus(now.delta + tile.bias)
    dt = plain
    if now.step is not None:
        dt *= now.step
    time, held = dt, 1.0
    if now.hold is not None:
        held = now.hold
        time = dt * held
    if now.missing is not None:
        time += now.missing * previous
    if now.gap is not None:
        time += now.gap
    time = tl.where(time > LONGEST, LONGEST, time)
    return Times(plain, tl.where(now.inside, dt, 0.0), tl.where(now.inside, time, 0.0), held)


@triton.jit
def previous_time(x, sizes, tile, step, REVERSE: tl.constexpr):
    """softplus(delta) of the step before, if it is needed; 0 before the first."""
    plain = tl.zeros_like(tile.bias)
    if x.missing is not None:
        token = token_of(step - 1, sizes.length, REVERSE)
        lanes = (tile.e < sizes.channels) & (step > 0) & (step <= sizes.length)
        delta = tl.load(row(x.delta, tile.b, token) + tile.e, mask=lanes, other=0.0).to(tl.float32)
        plain = tl.where(lanes, softplus(delta + tile.bias), 0.0)
    return plain


@triton.jit
def vector(x, e, sizes):
    """A parameter of each channel, 0 where it is not given."""
    if x is None:
        return tl.zeros_like(e).to(tl.float32)
    else:
        return tl.load(x + e, mask=e < sizes.channels, other=0.0)


@triton.jit
def rates_of(x, sizes, e, n, LOG_A: tl.constexpr):
    """``A log2(e)``, ``(STATES, CHANNELS)``. What pads A is -1: an infinite time may pass there too."""
    there = (n < sizes.states)[:, None] & (e < sizes.channels)[None, :]
    rates = tl.load(x.A + n[:, None] * sizes.channels + e[None, :], mask=there, other=0.0 if LOG_A else -1.0)
    if LOG_A:
        rates = -exp(rates)
    return rates * LOG2E


@triton.jit
def tile_of(x, sizes, b, tile, LOG_A: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """The :class:`Tile` of that number in sample b."""
    e = tile * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    rates = rates_of(x, sizes, e, n, LOG_A)
    return Tile(b.to(tl.int64), e, n, rates, vector(x.bias, e, sizes), vector(x.D, e, sizes))


@triton.jit
def source_of(now, times, tile):
    """What a step adds to the state."""
    added = (times.dt * now.u)[None, :] * now.B[:, None]
    if now.hold is not None:
        if times.held != 1.0:
            added *= held_sum(times.dt[None, :] * tile.rates, times.held)
    return added


@triton.jit
def decay_of(times, tile):
    return tl.exp2(times.all[None, :] * tile.rates)


@triton.jit
def advance(h, now, times, tile):
    """The state after a step."""
    return decay_of(times, tile) * h + source_of(now, times, tile)


@triton.jit
def state_at(x, number, tile, sizes):
    """Addresses of the state ``number`` in ``(… n e)``, and which of them are there."""
    there = (tile.n < sizes.states)[:, None] & (tile.e < sizes.channels)[None, :]
    offset = number.to(tl.int64) * sizes.states * sizes.channels
    return x + offset + tile.n[:, None] * sizes.channels + tile.e[None, :], there
