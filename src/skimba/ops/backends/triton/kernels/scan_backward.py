"""Gradients of the scan: Triton's language.

Backwards through chunks of ``EVERY`` steps. The states within a chunk are computed again from the saved one before it and put
aside, in memory of the program's own that is small enough to stay in the caches. What is summed over channels is written as
one partial sum for each tile: nothing needs atomics, and results do not change from run to run.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from skimba.ops.backends.triton.kernels.functions import LN2, held_slopes, sigmoid, silu_slope
from skimba.ops.backends.triton.kernels.scan_steps import (
    advance,
    at_place,
    decay_of,
    previous_time,
    read,
    row,
    state_at,
    tile_of,
    times_of,
)


class Gradients(NamedTuple):
    """Where gradients go, None for what is not given.

    Attributes:
        u, delta, z, gaps: as the operands.
        B, C: ``(b, tiles, l, n)``; gap, step, hold: ``(b, tiles, l)``; sums over the channels of a tile.
        A: ``(b, n, e)``; D, bias: ``(b, e)``.
    """

    u: Any
    delta: Any
    z: Any
    gaps: Any
    B: Any
    C: Any
    gap: Any
    step: Any
    hold: Any
    A: Any
    D: Any
    bias: Any


class Sums(NamedTuple):
    """What goes on from step to step: gradients of the state, A, D and bias, and of the time of the step before."""

    h: Any
    A: Any
    D: Any
    bias: Any
    plain: Any


@triton.jit
def through_gate(x, grad, out, now, tile, h):
    """The gradient of the output before the gate; writes that of ``z``."""
    to_y = at_place(grad, tile.b, now.place, tile.e, now.lanes, False)
    if x.z is not None:
        y = tl.sum(h * now.C[:, None], 0) + tile.skip * now.u
        opened = sigmoid(now.z)
        to_z = to_y * y * silu_slope(now.z, opened)
        tl.store(row(out.z, tile.b, now.place) + tile.e, to_z, mask=now.lanes & (now.place >= 0))
        to_y *= now.z * opened
    return to_y


@triton.jit
def through_hold(now, times, tile, to_h, COUNT: tl.constexpr):
    """Through the sum of decays by which a step's input is multiplied.

    Returns:
        The sum, ``(STATES, CHANNELS)``, and the gradients of A, of Δ and of the number held.
    """
    held = tl.full(to_h.shape, 1.0, tl.float32)
    to_A = tl.zeros_like(to_h)
    to_dt, to_count = tl.zeros_like(now.u), tl.zeros_like(now.u)
    if COUNT or times.held != 1.0:
        held, by_exponent, by_count = held_slopes(times.dt[None, :] * tile.rates, times.held)
        to_held = to_h * (times.dt * now.u)[None, :] * now.B[:, None]
        to_A = to_held * by_exponent * times.dt[None, :]
        to_dt = tl.sum(to_held * by_exponent * tile.rates, 0) * LN2
        to_count = tl.sum(to_held * by_count, 0)
    return held, to_A, to_dt, to_count


@triton.jit
def through_times(x, out, sizes, now, times, tile, sums, to_input, to_dt, to_time):
    """From the gradients of a step's input, Δ and time to those of what they come from; ``to_dt`` has not got theirs yet.

    Returns:
        The gradients of the raw time, and of the plain time of the step before.
    """
    to_dt += to_time * times.held + to_input * now.u
    to_plain, from_next = to_dt, tl.zeros_like(to_dt)
    if x.step is not None:
        to_plain *= now.step
    to_raw = (to_plain + sums.plain) * sigmoid(now.delta + tile.bias)
    tl.store(row(out.delta, tile.b, now.token) + tile.e, to_raw, mask=now.lanes)
    if x.missing is not None:
        from_next = to_time * now.missing
    if x.gaps is not None:
        tl.store(row(out.gaps, tile.b, now.token) + tile.e, to_time, mask=now.lanes)
    at = tl.program_id(0).to(tl.int64) * sizes.length + now.token
    if x.gap is not None:
        tl.store(out.gap + at, tl.sum(to_time))
    if x.step is not None:
        tl.store(out.step + at, tl.sum(to_dt * times.plain))
    return to_raw, from_next


@triton.jit
def retreat(x, grad, out, sizes, tile, now, previous, before, h, sums):
    """Back through one step, from the state ``h`` after it to that ``before`` it: the new :class:`Sums`."""
    times = times_of(now, tile, previous)
    to_y = through_gate(x, grad, out, now, tile, h)
    to_h = sums.h + to_y[None, :] * now.C[:, None]
    to_A, to_source, to_dt = sums.A, to_h, tl.zeros_like(to_y)
    # Sums of this tile lie in (b, tiles, l): the program's number counts samples and tiles.
    at = tl.program_id(0).to(tl.int64) * sizes.length + now.token
    to_decayed = to_h * decay_of(times, tile)
    to_exponent = to_decayed * before
    to_time = tl.sum(to_exponent * tile.rates, 0) * LN2
    if x.hold is not None:
        held, more_A, to_dt, to_count = through_hold(now, times, tile, to_h, out.hold is not None)
        to_source = to_h * held
        to_A += more_A
        if out.hold is not None:
            tl.store(out.hold + at, tl.sum(to_time * times.dt + to_count))
    to_input = tl.sum(to_source * now.B[:, None], 0)
    states = at * sizes.states + tile.n
    there = tile.n < sizes.states
    tl.store(out.B + states, tl.sum(to_source * (times.dt * now.u)[None, :], 1), mask=there)
    tl.store(out.C + states, tl.sum(to_y[None, :] * h, 1), mask=there)
    to_u = to_input * times.dt + tile.skip * to_y
    tl.store(row(out.u, tile.b, now.place) + tile.e, to_u, mask=now.lanes & (now.place >= 0))
    to_A += to_exponent * times.all[None, :]
    to_raw, from_next = through_times(x, out, sizes, now, times, tile, sums, to_input, to_dt, to_time)
    return Sums(to_decayed, to_A, sums.D + to_y * now.u, sums.bias + to_raw, from_next)


@triton.jit
def scan_backward(
    x,
    grad,
    saved,
    aside,
    out,
    sizes,
    EVERY: tl.constexpr,
    FLAGS: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """All gradients of a tile of channels of a sample, from the states ``saved (b, ceil(l / EVERY), n, e)``.

    ``aside`` is memory for ``(programs, EVERY, STATES, CHANNELS)``.
    """
    tiles = tl.cdiv(sizes.channels, CHANNELS)
    tile = tile_of(x, sizes, tl.program_id(0) // tiles, tl.program_id(0) % tiles, FLAGS[1], STATES, CHANNELS)
    own = tile.n[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    own = aside + tl.program_id(0).to(tl.int64) * EVERY * STATES * CHANNELS + own
    nothing, none = tl.zeros([STATES, CHANNELS], tl.float32), tl.zeros([CHANNELS], tl.float32)
    sums = Sums(nothing, nothing, none, none, none)
    chunks = tl.cdiv(sizes.length, EVERY)
    for done in range(chunks):
        chunk = chunks - 1 - done
        first = chunk * EVERY
        count = tl.minimum(EVERY, sizes.length - first)
        address, there = state_at(saved, tile.b * chunks + chunk, tile, sizes)
        h = tl.load(address, mask=there, other=0.0)
        previous = previous_time(x, sizes, tile, first, FLAGS[0])
        for i in range(count):
            tl.store(own + i * STATES * CHANNELS, h)
            now = read(x, sizes, tile, first + i, FLAGS[0])
            times = times_of(now, tile, previous)
            h = advance(h, now, times, tile)
            previous = times.plain
        tl.debug_barrier()
        for i in range(count):
            step = first + count - 1 - i
            before = tl.load(own + (count - 1 - i) * STATES * CHANNELS)
            now = read(x, sizes, tile, step, FLAGS[0])
            previous = previous_time(x, sizes, tile, step, FLAGS[0])
            sums = retreat(x, grad, out, sizes, tile, now, previous, before, h, sums)
            h = before
        tl.debug_barrier()
    to_A = sums.A
    if FLAGS[1]:  # by the logarithm of -A
        to_A *= tile.rates * LN2
    address, there = state_at(out.A, tile.b, tile, sizes)
    tl.store(address, to_A, mask=there)
    lanes = tile.e < sizes.channels
    if out.D is not None:
        tl.store(out.D + tile.b * sizes.channels + tile.e, sums.D, mask=lanes)
    if out.bias is not None:
        tl.store(out.bias + tile.b * sizes.channels + tile.e, sums.bias, mask=lanes)
