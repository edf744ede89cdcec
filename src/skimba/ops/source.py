"""Full sequences that show few tokens.

A source ``(b L)`` says which token, 0 … l-1, each position of the full sequence shows, or -1 where it shows zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_source(source: Tensor, length: int) -> None:
    """Raise IndexError unless all of ``source`` is -1 … length-1."""
    if source.numel() == 0:
        return
    for found in (int(source.min()), int(source.max())):
        if not -1 <= found < length:
            raise IndexError(f"source must be -1 ... {length - 1}, got {found}")


def show(x: Tensor, source: Tensor) -> Tensor:
    """Tokens ``x (b l e)`` where ``source (b L)`` shows them, zeros where it is -1: ``(b L e)``."""
    shown = x.gather(1, source.long().clamp(min=0)[..., None].expand(-1, -1, x.shape[2]))
    return shown * (source >= 0)[..., None]


def mean_shown(full: Tensor, source: Tensor, length: int) -> Tensor:
    """For each token the mean of ``full (b L e)`` over the positions that show it: ``(b l e)``, zeros if none does."""
    # Positions that show nothing go to one more token, which is left out at the end.
    index = source.long().where(source >= 0, length)
    total = full.new_zeros(full.shape[0], length + 1, full.shape[2])
    total = total.scatter_add(1, index[..., None].expand_as(full), full)
    count = full.new_zeros(full.shape[0], length + 1).scatter_add(1, index, torch.ones_like(full[..., 0]))
    return (total / count.clamp(min=1)[..., None])[:, :length]
