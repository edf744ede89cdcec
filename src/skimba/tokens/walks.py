"""The orders in which PlainMamba's four scans visit a grid.

Source: PlainMamba (arXiv 2403.17695, section 3.3; github ChenhongyiYang/PlainMamba, plain_mamba_layer.py).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

START, RIGHT, LEFT, UP, DOWN = range(5)  # compat: rows of the official parameter `direction_Bs`


def _snake(lines: Tensor) -> Tensor:
    """Walk the rows of ``lines`` in turn, every second one backwards."""
    lines = lines.clone()
    lines[1::2] = lines[1::2].flip(1)
    return lines.flatten()


def _moves(order: Tensor, width: int) -> Tensor:
    """How each step of a walk was reached: START, or the direction of the move."""
    delta = order[1:] - order[:-1]
    moves = torch.full_like(order, START)
    for code, offset in ((RIGHT, 1), (LEFT, -1), (UP, -width), (DOWN, width)):
        moves[1:][delta == offset] = code
    if width == 1:  # one column: a step to the next position is a step down, not right
        moves[1:] = torch.where(delta > 0, DOWN, UP)
    return moves


@lru_cache(maxsize=64)
def snake_orders(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four continuous walks over a grid: along rows from the top, along rows from the bottom, along columns from
    the left, along columns from the right.

    Returns:
        ``order (4 L)``, the position visited at each step, and ``move (4 L)``, the direction code (0 start, 1 right,
        2 left, 3 up, 4 down) with which each *position* is entered; both int64, positions in raster order.
    """
    grid = torch.arange(height * width).view(height, width)
    # The second walk of each pair ends where the first began, so its first line depends on the parity.
    up = grid.flip(0) if height % 2 == 0 else grid.flip(0, 1)
    from_right = grid.T.flip(0) if width % 2 == 0 else grid.T.flip(0, 1)
    order = torch.stack([_snake(lines) for lines in (grid, up, grid.T, from_right)])
    move = torch.empty_like(order)
    for o in range(4):
        move[o, order[o]] = _moves(order[o], width)
    return order, move
