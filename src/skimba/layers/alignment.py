"""Convolutions and means over sequences from which tokens are missing, as the layout's alignment
(:mod:`skimba.tokens.alignment`) says."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from skimba.ops import causal_conv1d, depthwise_conv2d, mean_shown, show
from skimba.tokens import Layout


def align_conv1d(layout: Layout, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """``silu`` of a causal convolution along the sequence: ``x (b l e)`` -> ``(b l e)``, aligned as the layout says."""
    return causal_conv1d(x, weight, bias, source=conv_source(layout), reverse=reverse)


def align_conv2d(layout: Layout, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``silu`` of a depthwise convolution over the grid: ``x (b l e)`` -> ``(b l e)``, aligned as the layout says."""
    source = conv_source(layout)
    if source is not None:
        return depthwise_conv2d(x, weight, bias, source=source.unflatten(1, layout.grid))
    return _over_rows(layout, x, lambda grid: depthwise_conv2d(grid, weight, bias))


def align_grid(layout: Layout, x: Tensor, convolution: Callable[[Tensor], Tensor]) -> Tensor:
    """As :func:`align_conv2d` for any ``convolution (b h w e) -> (b h w e)``."""
    source = conv_source(layout)
    if source is None:
        return _over_rows(layout, x, convolution)
    full = convolution(show(x, source).unflatten(1, layout.grid))
    return mean_shown(full.flatten(1, 2), source, layout.length)


def _over_rows(layout: Layout, x: Tensor, convolution: Callable[[Tensor], Tensor]) -> Tensor:
    """The convolution over what is there, laid out in rows of the grid's width, the last one filled up with zeros."""
    length, width = x.shape[1], layout.grid[1]
    if spare := -length % width:
        x = F.pad(x, (0, 0, 0, spare))
    return convolution(x.unflatten(1, (-1, width))).flatten(1, 2)[:, :length]


def conv_source(layout: Layout) -> Tensor | None:
    """``(b L)`` the token that a convolution finds at each position, -1 for zeros; None where it runs over the tokens as they
    stand."""
    return None if layout.position is None else layout.alignment.conv.source(layout)


def pool(layout: Layout, x: Tensor) -> Tensor:
    """Mean over the positions ``(b l d) -> (b d)``: with ``hold`` a token counts for all the positions it owns."""
    if not layout.alignment.scan.by_owner or layout.size is None:
        return x.mean(1)
    weight = layout.size / layout.full_length
    return (x * weight[..., None].to(x.dtype)).sum(1)
