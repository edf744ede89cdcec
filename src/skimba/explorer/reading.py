"""What a patch reads, what the class token reads, how long scans remember and what a token depends on, as plain data."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.insight import area, hidden_attention, pace, position_of_patch, receptive_field, scan_times
from skimba.insight.places import token_of_position
from skimba.insight.watching import check_block, watch_block
from skimba.models import TokenModel

LENGTHS = tuple(2.0**power for power in range(-2, 12))  # edges of the bins of decay lengths, in positions


def reading(model: TokenModel, image: Tensor, block: int, patch: int) -> dict[str, Any]:
    """Hidden attention of one block of one image ``(1 c height width)``, its gate and convolution included, as shares of 1.

    ``walks`` names the scans. ``reads`` has for each scan how much the patch reads of each patch of the grid, in raster order;
    ``reach`` the same for the class token (or the first of the extra tokens), None where the model has none. What is missing
    to 1 is read of extra tokens.

    Raises:
        ValueError: a block or patch out of range.
    """
    check_block(model, block)
    layout = model.embed(image).layout
    positions = [position_of_patch(layout, patch), *layout.extras[:1]]
    found = hidden_attention(model, image, block, positions=positions, include=("convolution", "gate"))
    weight, maps = found.weight[0], found.maps[0]  # (s i j), (s i h w)
    total = weight.sum((0, 2))  # what a position reads in all scans together
    shares = maps.flatten(2) / total.clamp(min=1e-30)[:, None]
    reach = shares[:, 1].tolist() if layout.extras else None
    return {
        "walks": list(found.walks),
        "reads": shares[:, 0].tolist(),
        "reach": reach,
    }


def memory(model: TokenModel, dense: TokenModel, image: Tensor, block: int, patch: int) -> dict[str, Any]:
    """How long the scans of a block remember, and what the token that stands for a patch after it depends on; of one image.

    ``lengths``: the share of all channels and states whose decay length lies between two of ``edges``, in positions; what is
    shorter or longer is in the first and the last bin. ``median``: of the lengths. ``pace``: of the scans' clocks along the
    positions, where the dense model's run at 1. ``field``: the share of each patch in the token's effective receptive field;
    ``area``: the smallest share of the pixels that holds 80 % of it; both None where no token stands for the patch.

    Raises:
        ValueError: a block or patch out of range.
    """
    times = scan_times(model, image, block)
    lengths = times.decay_lengths.flatten()
    counts = torch.bincount(torch.bucketize(lengths, torch.tensor(LENGTHS[1:-1])), minlength=len(LENGTHS) - 1)
    layout = watch_block(model, image, block).left.layout
    position = position_of_patch(layout, patch)
    there = token_of_position(layout, 0)[position] >= 0
    field = receptive_field(model, image, position, block) if there else None
    return {
        "edges": list(LENGTHS),
        "lengths": (counts / counts.sum()).tolist(),
        "median": float(lengths.median()),
        "pace": pace(scan_times(dense, image, block), {"": times})[""],
        "field": None if field is None else _by_patch(field, layout.grid).tolist(),
        "area": None if field is None else area(field),
    }


def _by_patch(field: Tensor, grid: tuple[int, ...]) -> Tensor:
    """``(height width)`` or ``(t height width)`` -> the shares of the patches, in raster order, frame by frame."""
    mean = F.adaptive_avg_pool2d(field[None] if field.ndim == 3 else field[None, None], (grid[-2], grid[-1])).flatten()
    return mean / mean.sum()
