"""Every order in which a scan can visit a grid.

A walk takes a grid, ``(h, w)`` or ``(t, h, w)`` for frames of a clip, and gives the cell that each step visits, cells numbered
in raster order. A walk in windows that do not fit the grid passes padding too, and marks it -1. Entries of :data:`WALKS`; a
model names its walks. Results are plain arrays, so nothing that is cached here belongs to a device or to a trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

Grid = tuple[int, ...]
Cells = NDArray[np.int64]
Walk = Callable[[Grid], Cells]
START, RIGHT, LEFT, UP, DOWN = range(5)  # compat: rows of PlainMamba's official parameter `direction_Bs`


def _cells(grid: Grid) -> Cells:
    return np.arange(math.prod(grid)).reshape(grid)


def rows(grid: Grid) -> Cells:
    """Row by row, frame by frame: raster order."""
    return _cells(grid).ravel()


def columns(grid: Grid) -> Cells:
    """Column by column from the left, each from the top; frame by frame."""
    return _cells(grid).swapaxes(-1, -2).ravel()


def columns_misread(grid: Grid) -> Cells:
    """compat: where LocalVim's official code puts back what it walked by :func:`columns`, as if over a grid of swapped sides.
    On a square grid the same as :func:`columns`."""
    return _cells(grid[:-2] + grid[:-3:-1]).swapaxes(-1, -2).ravel()


def time(grid: Grid) -> Cells:
    """Place by place in raster order, at each place through all the frames."""
    return _cells(grid).reshape(-1, grid[-2] * grid[-1]).T.ravel()


def windows(grid: Grid, side: int) -> Cells:
    """Windows of ``side`` x ``side`` cells in raster order, raster order inside; padded below and right until they fit."""
    height, width = grid[-2:]
    padding = ((0, 0), (0, -height % side), (0, -width % side))
    padded = np.pad(_cells(grid).reshape(-1, height, width), padding, constant_values=-1)
    return padded.reshape(len(padded), -1, side, padded.shape[2] // side, side).swapaxes(2, 3).ravel()


def snake(grid: Grid) -> Cells:
    """Rows from the top, every second one backwards, and so with the frames: each step goes to a neighbour."""
    return _snake(_cells(grid))


def snake_up(grid: Grid) -> Cells:
    """As :func:`snake`, rows from the bottom. Its first row is walked so that it ends where :func:`snake` begins."""
    height = grid[-2]
    return _snake(_cells(grid)[::-1] if height % 2 == 0 else _cells(grid)[::-1, ::-1])


def snake_columns(grid: Grid) -> Cells:
    """Columns from the left, every second one backwards."""
    return _snake(_cells(grid).T)


def snake_columns_left(grid: Grid) -> Cells:
    """As :func:`snake_columns`, columns from the right; it ends where :func:`snake_columns` begins."""
    width = grid[-1]
    return _snake(_cells(grid).T[::-1] if width % 2 == 0 else _cells(grid).T[::-1, ::-1])


def _snake(cells: Cells) -> Cells:
    if cells.ndim == 1:
        return cells
    lines = [_snake(line) for line in cells]
    return np.concatenate([line if number % 2 == 0 else line[::-1] for number, line in enumerate(lines)])


def back(grid: Grid, walk: Walk) -> Cells:
    """The whole walk from its end to its start."""
    return walk(grid)[::-1]


@lru_cache(maxsize=256)
def full_walk(walk: str, grid: Grid, extras: tuple[int, ...]) -> Cells:
    """The positions of the full sequence in the order in which a walk visits them.

    An extra token is visited at the step of its own position. Padding gets the positions after the last one, in the order in
    which it is visited.

    Args:
        walk: a key of :data:`WALKS`.
        extras: ascending positions of the extra tokens.
    """
    cells = WALKS[walk](grid)
    length = math.prod(grid) + len(extras)
    image = np.setdiff1d(np.arange(length), extras)
    steps = np.where(cells < 0, -1, image[cells])
    for position in extras:
        steps = np.insert(steps, position, position)
    padding = steps < 0
    steps[padding] = length + np.arange(padding.sum())
    steps.setflags(write=False)
    return steps


@lru_cache(maxsize=256)
def moves(walk: str, grid: Grid) -> Cells:
    """How a continuous walk over ``(h, w)`` enters each cell: START, RIGHT, LEFT, UP or DOWN."""
    order, width = WALKS[walk](grid), grid[1]
    delta = np.diff(order)
    entered = np.full_like(order, START)
    if width == 1:  # one column: a step to the next position is a step down, not right
        entered[order[1:]] = np.where(delta > 0, DOWN, UP)
    else:
        for code, offset in ((RIGHT, 1), (LEFT, -1), (UP, -width), (DOWN, width)):
            entered[order[1:][delta == offset]] = code
    entered.setflags(write=False)
    return entered


WALKS: dict[str, Walk] = {
    "rows": rows,
    "columns": columns,
    "columns_misread": columns_misread,
    "windows2": partial(windows, side=2),
    "windows7": partial(windows, side=7),
    "time": time,
    "snake": snake,
    "snake_up": snake_up,
    "snake_columns": snake_columns,
    "snake_columns_left": snake_columns_left,
}
WALKS |= {f"{name}_back": partial(back, walk=walk) for name, walk in WALKS.items()}
