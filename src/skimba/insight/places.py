"""Tokens that are left, and the positions of the full sequence that they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skimba.tokens import Layout


def position_of_patch(layout: Layout, patch: int | tuple[int, ...]) -> int:
    """The position of an image patch in the full sequence.

    Args:
        patch: its number in raster order, or its row and column (of a clip: frame, row and column).

    Raises:
        ValueError: no such patch.
    """
    grid = layout.grid
    if isinstance(patch, tuple):
        if len(patch) != len(grid) or not all(0 <= at < side for at, side in zip(patch, grid, strict=True)):
            raise ValueError(f"patch must be ({', '.join(f'0 … {side - 1}' for side in grid)}), got {patch}")
        patch = int(np.ravel_multi_index(patch, grid))
    count = layout.full_length - len(layout.extras)
    if not 0 <= patch < count:
        raise ValueError(f"patch must be 0 … {count - 1}, got {patch}")
    image = layout.image_part(torch.arange(layout.full_length)[None]).flatten()
    return int(image[patch])


def check_positions(layout: Layout, positions: Sequence[int]) -> None:
    """Raise ValueError unless all are positions of the full sequence."""
    for position in positions:
        if not 0 <= position < layout.full_length:
            raise ValueError(f"positions must be 0 … {layout.full_length - 1}, got {position}")


def token_of_position(layout: Layout, image: int) -> Tensor:
    """``(L)`` int64: the token that stands for each position of one image: its owner, or its own; -1 where there is none."""
    if layout.position is None:
        return torch.arange(layout.full_length, device=layout.device)
    source = layout.position_source if layout.owner is None else layout.owner_source
    assert source is not None
    return source[image].long()


def spread_rows(x: Tensor, token: Tensor) -> Tensor:
    """Values of tokens ``(... l e)`` at all positions ``(... L e)``: a position has those of its token, or zeros.

    Args:
        token: ``(L)`` as :func:`token_of_position` gives it.
    """
    return x[..., token.clamp(min=0), :] * (token >= 0)[:, None]


def share_columns(x: Tensor, token: Tensor) -> Tensor:
    """What is read from tokens ``(... l)`` shared out among the positions ``(... L)`` that each stands for: sums are kept."""
    size = torch.bincount(token[token >= 0], minlength=x.shape[-1]).clamp(min=1).to(x.dtype)
    return (x / size)[..., token.clamp(min=0)] * (token >= 0)
