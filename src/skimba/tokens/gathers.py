"""Gathers and sums of tokens by index, for every image of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def flat_rows(index: Tensor, length: int) -> Tensor:
    """``index (b k)`` into sequences of ``length``, as row numbers ``(b*k)`` of the batch laid end to end."""
    if index.shape[0] == 1:  # four operations less: a third of all that a stage runs at batch 1
        return index.flatten()
    first_row = torch.arange(index.shape[0], device=index.device)[:, None] * length
    return (index + first_row).flatten()


def take(x: Tensor, index: Tensor) -> Tensor:
    """Token ``index[i, j]`` of image ``i``, for every ``i`` and ``j``.

    Args:
        x: ``(b l ...)``.
        index: ``(b k)`` int64, or ``(k)`` where all images share it.

    Returns:
        ``(b k ...)``.
    """
    if index.dim() == 1:
        return x.index_select(1, index)
    rows = x.flatten(0, 1).index_select(0, flat_rows(index, x.shape[1]))
    return rows.unflatten(0, index.shape)


def group_sum(x: Tensor, group: Tensor, count: int) -> Tensor:
    """Sum of the tokens of each group: ``x (b l ...)``, ``group (b l)`` in ``0 … count-1`` -> ``(b count ...)``."""
    batch = x.shape[0]
    total = x.new_zeros(batch * count, *x.shape[2:])
    return total.index_add(0, flat_rows(group, count), x.flatten(0, 1)).unflatten(0, (batch, count))


def share_of_group(weight: Tensor, group: Tensor, count: int) -> Tensor:
    """Each token's share of the weight of its group: ``weight (b l)``, ``group (b l)`` in ``0 … count-1`` -> ``(b l)``."""
    return weight / take(group_sum(weight, group, count), group)
