"""How a scan and a convolution behave when tokens are missing, so that what is left behaves as the whole would.

Three ways. ``none``: missing positions do not exist, neighbours close ranks. ``decay`` (Zhan et al., "Exploring Token
Pruning in Vision State Space Models", NeurIPS 2024): a missing position adds nothing, but its time passes and the state
decays. ``hold`` (ours): every position keeps an owner, which stands for all the positions it owns, as a sampled
continuous-time system is resampled: its step lasts as long as all of them, and the convolution sees it at each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from skimba.ops import causal_conv1d, depthwise_conv2d, mean_shown, show
from skimba.tokens import Alignment, Layout, ScanOrder

ScanTime = dict[str, Any]  # some of `gap`, `step` and `missing`, arguments of skimba.selective_scan


def scan_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """The arguments of :func:`skimba.selective_scan` that align one scan.

    Args:
        alignment: its ``scan`` is a key of :data:`SCAN_TIME` or a function like those in it.
        order: the scan.
        delta: ``(b l e)`` time steps before softplus and bias, in the order of the steps.
        delta_bias: ``(e)``.
    """
    method = SCAN_TIME[alignment.scan] if isinstance(alignment.scan, str) else alignment.scan
    return method(alignment, order, delta, delta_bias)


def _none_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return {}


def _decay_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """Time of the missing positions: their number times one estimate of their step. Exponents add, so a whole run of
    missing positions folds into the next step at no cost."""
    if order.missing is None:
        return {}
    return GAP_DELTA[alignment.gap_delta](order.missing, delta, delta_bias)


def _hold_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return {} if order.size is None else {"step": order.size}


def _previous_delta(missing: Tensor, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return {"missing": missing}  # the scan knows the previous step's time itself


def _own_delta(missing: Tensor, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return {"gap": missing[..., None] * F.softplus(delta.float() + delta_bias)}


def _bias_delta(missing: Tensor, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return {"gap": missing[..., None] * F.softplus(delta_bias.float())}


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
    if layout.position is None:
        return None
    conv = layout.alignment.conv
    return (CONVOLUTION[conv] if isinstance(conv, str) else conv)(layout)


def _no_source(layout: Layout) -> None:
    return None


def _position_source(layout: Layout) -> Tensor | None:
    return layout.position_source


def _owner_source(layout: Layout) -> Tensor | None:
    if layout.owner_source is None:
        raise ValueError("a held convolution needs positions with owners, got tokens reduced without an owner")
    return layout.owner_source


def pool(layout: Layout, x: Tensor) -> Tensor:
    """Mean over the positions ``(b l d) -> (b d)``: with ``hold`` a token counts for all the positions it owns."""
    if layout.alignment.scan != "hold" or layout.size is None:
        return x.mean(1)
    weight = layout.size / layout.full_length
    return (x * weight[..., None].to(x.dtype)).sum(1)


SCAN_TIME: dict[str, Callable[..., ScanTime]] = {"none": _none_time, "decay": _decay_time, "hold": _hold_time}
GAP_DELTA = {"previous": _previous_delta, "own": _own_delta, "bias": _bias_delta}
CONVOLUTION: dict[str, Callable[[Layout], Tensor | None]] = {
    "condensed": _no_source,
    "zeros": _position_source,
    "held": _owner_source,
}
