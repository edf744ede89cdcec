"""Which tokens one that may go is compared with. A function is one entry of :data:`PARTNERS`.

Every function takes ``(tokens, sources, targets)`` — the tokens after a block, places ``(b i)`` of those that may go and
``(b j)`` of those that they may merge into, both along a walk — and returns some of the latter: ``(b j)``, the same for all, or
``(b i k)``, for each its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from skimba.pruning.likeness import grid_place
from skimba.tokens import Tokens, take

Partners = Callable[[Tokens, Tensor, Tensor], Tensor]
REACH = 2  # steps on the grid that a neighbour may be away
ALL_UP_TO = 1024  # tokens, a picture of 512 pixels; beyond, comparing all with all would take its time


def all_targets(tokens: Tokens, sources: Tensor, targets: Tensor) -> Tensor:
    """All: quadratic in the number of tokens."""
    return targets


def near(tokens: Tokens, sources: Tensor, targets: Tensor) -> Tensor:
    """Those that own, or stand at, a position at most REACH steps away, and the two beside it on the walk. Ours: on a whole grid
    walked as a snake all four neighbours are among them.

    Where there is no such position, or what stands there may not be merged into, the one that follows on the walk is named again.
    """
    step = torch.arange(sources.shape[1], device=sources.device)
    beside = targets[:, torch.stack([step, step - 1], -1).clamp(0, targets.shape[1] - 1)]  # (b i 2)
    shown, place = _shown(tokens), [take(axis, sources)[..., None] for axis in grid_place(tokens)]
    steps = torch.tensor(_steps(len(tokens.grid)), device=sources.device)  # (k axes)
    cell, inside = torch.zeros_like(sources)[..., None], torch.ones_like(sources, dtype=torch.bool)[..., None]
    for number, size in enumerate(tokens.grid):
        at = place[number] + steps[:, number]
        cell, inside = cell * size + at.clamp(0, size - 1), inside & (at >= 0) & (at < size)
    found = take(shown, cell.flatten(1)).unflatten(1, cell.shape[1:])
    may = torch.zeros(tokens.x.shape[:2], dtype=torch.bool, device=targets.device).scatter(1, targets, True)
    may = take(may, found.clamp(min=0).flatten(1)).unflatten(1, found.shape[1:])
    return torch.cat([beside, torch.where(inside & may & (found >= 0), found, beside[..., :1])], -1)


def near_of_many(tokens: Tokens, sources: Tensor, targets: Tensor) -> Tensor:
    """All while there are at most ALL_UP_TO image tokens, else those that are :func:`near`."""
    compare = all_targets if tokens.layout.image_count <= ALL_UP_TO else near
    return compare(tokens, sources, targets)


def _shown(tokens: Tokens) -> Tensor:
    """``(b cells)`` int64: the token that owns, or else that stands at, each cell of the grid in raster order; -1 for none."""
    layout, batch = tokens.layout, tokens.x.shape[0]
    if layout.owner is not None:
        full = layout.owner
    elif layout.position_source is not None:
        full = layout.position_source.long()
    else:
        full = layout.positions(batch, tokens.x.device)
    return layout.image_part(full).reshape(batch, math.prod(layout.grid))


def _steps(axes: int) -> list[tuple[int, ...]]:
    """Ways to go at most REACH steps on a grid, but not to stay."""
    ways = itertools.product(range(-REACH, REACH + 1), repeat=axes)
    return [way for way in ways if 0 < sum(map(abs, way)) <= REACH]


PARTNERS: dict[str, Partners] = {"all": all_targets, "near": near, "near_of_many": near_of_many}
