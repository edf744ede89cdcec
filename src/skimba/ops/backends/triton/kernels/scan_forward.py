"""The scan forward, and the states that a backward pass starts from: Triton's language."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from skimba.ops.backends.triton.kernels.functions import sigmoid
from skimba.ops.backends.triton.kernels.scan_steps import (
    advance,
    previous_time,
    read,
    row,
    state_at,
    tile_of,
    times_of,
)


class Results(NamedTuple):
    """What the scan writes, each wanted or None.

    Attributes:
        y: the output, as an operand.
        saved: ``(b, ceil(l / EVERY), n, e)``, the state before every ``EVERY``-th step.
        ends: ``(b, segments, n, e)``, what a segment makes of an empty state.
        times: ``(b, segments, e)``, the time that passes in a segment.
    """

    y: Any
    saved: Any
    ends: Any
    times: Any


@triton.jit
def scan(
    x,
    out,
    starts,
    sizes,
    segments,
    steps,
    EVERY: tl.constexpr,
    FLAGS: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One segment of ``steps`` steps, from ``starts (b, segments, n, e)`` or, if that is None, from an empty state.

    A program is a tile of channels (these change fastest, so that neighbours share B and C in the cache) of a segment of a
    sample. ``FLAGS``: reverse, log_A. What a step reads is asked for before the step that comes before it is computed.
    """
    tiles = tl.cdiv(sizes.channels, CHANNELS)
    number = tl.program_id(0) // tiles  # of the segment, over all samples
    tile = tile_of(x, sizes, number // segments, tl.program_id(0) % tiles, FLAGS[1], STATES, CHANNELS)
    h = tl.zeros([STATES, CHANNELS], tl.float32)
    if starts is not None:
        address, there = state_at(starts, number, tile, sizes)
        h = tl.load(address, mask=there, other=0.0)
    first = number % segments * steps
    previous = previous_time(x, sizes, tile, first, FLAGS[0])
    total = tl.zeros([CHANNELS], tl.float32)
    now = read(x, sizes, tile, first, FLAGS[0])
    for step in range(first, tl.minimum(first + steps, sizes.length)):
        after = read(x, sizes, tile, step + 1, FLAGS[0])
        if out.saved is not None:
            if step % EVERY == 0:
                address, there = state_at(out.saved, tile.b * tl.cdiv(sizes.length, EVERY) + step // EVERY, tile, sizes)
                tl.store(address, h, mask=there)
        times = times_of(now, tile, previous)
        h = advance(h, now, times, tile)
        if out.y is not None:
            y = tl.sum(h * now.C[:, None], 0) + tile.skip * now.u
            if x.z is not None:
                y *= now.z * sigmoid(now.z)
            tl.store(row(out.y, tile.b, now.place) + tile.e, y, mask=now.lanes & (now.place >= 0))
        previous = times.plain
        total += times.all
        now = after
    if out.ends is not None:
        address, there = state_at(out.ends, number, tile, sizes)
        tl.store(address, h, mask=there)
        tl.store(out.times + number * sizes.channels + tile.e, total, mask=tile.e < sizes.channels)


@triton.jit
def carry(x, ends, times, sizes, segments, FLAGS: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """From what each segment makes of an empty state to the state before each, in place, segment after segment."""
    tiles = tl.cdiv(sizes.channels, CHANNELS)
    tile = tile_of(x, sizes, tl.program_id(0) // tiles, tl.program_id(0) % tiles, FLAGS[1], STATES, CHANNELS)
    h = tl.zeros([STATES, CHANNELS], tl.float32)
    for segment in range(segments):
        number = tile.b * segments + segment
        address, there = state_at(ends, number, tile, sizes)
        end = tl.load(address, mask=there, other=0.0)
        tl.store(address, h, mask=there)
        time = tl.load(times + number * sizes.channels + tile.e, mask=tile.e < sizes.channels, other=0.0)
        h = tl.exp2(time[None, :] * tile.rates) * h + end
