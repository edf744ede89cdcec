"""How a scan and a convolution behave when tokens are missing, so that what is left behaves as the whole would.

Three ways. ``none``: missing positions do not exist, neighbours close ranks. ``decay`` (Zhan et al., "Exploring Token
Pruning in Vision State Space Models", NeurIPS 2024): a missing position adds nothing, but its time passes and the state
decays. ``hold`` (ours): every position keeps an owner, which stands for all the positions it owns, as a sampled
continuous-time system is resampled: its step lasts as long as all of them, and the convolution sees it at each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from skimba.ops import causal_conv1d, depthwise_conv2d
from skimba.tokens import Alignment, Layout, ScanOrder, group_sum, take

ScanTime = tuple[Tensor | None, Tensor | None]  # `gap` and `step` of skimba.selective_scan
Convolution = Callable[[Tensor], Tensor]  # full sequence (b L e) -> (b L e)


def scan_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """The ``gap`` and ``step`` that align one scan.

    Args:
        alignment: its ``scan`` is a key of :data:`SCAN_TIME` or a function like those in it.
        order: the scan.
        delta: ``(b l e)`` time steps before softplus and bias, in the order of the steps.
        delta_bias: ``(e)``.
    """
    method = SCAN_TIME[alignment.scan] if isinstance(alignment.scan, str) else alignment.scan
    return method(alignment, order, delta, delta_bias)


def _none_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return None, None


def _decay_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    """Time of the missing positions: their number times one estimate of their step. Exponents add, so a whole run of
    missing positions folds into the next step at no cost."""
    if order.missing is None:
        return None, None
    return order.missing[..., None] * GAP_DELTA[alignment.gap_delta](order, delta, delta_bias), None


def _hold_time(alignment: Alignment, order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> ScanTime:
    return None, order.size


def _previous_delta(order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> Tensor:
    # The first step's neighbour is arbitrary: nothing is missing before it.
    return F.softplus(delta.float() + delta_bias).roll(-1 if order.reverse else 1, dims=1)


def _own_delta(order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> Tensor:
    return F.softplus(delta.float() + delta_bias)


def _bias_delta(order: ScanOrder, delta: Tensor, delta_bias: Tensor) -> Tensor:
    return F.softplus(delta_bias.float())


def align_conv1d(layout: Layout, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """``silu`` of a causal convolution along the sequence: ``x (b l e)`` -> ``(b l e)``, aligned as the layout says."""
    return _align_conv(layout, x, lambda full: causal_conv1d(full, weight, bias, reverse=reverse))


def align_conv2d(layout: Layout, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``silu`` of a depthwise convolution over the grid: ``x (b l e)`` -> ``(b l e)``, aligned as the layout says."""
    return align_grid(layout, x, lambda grid: depthwise_conv2d(grid, weight, bias))


def align_grid(layout: Layout, x: Tensor, convolution: Convolution) -> Tensor:
    """As :func:`align_conv2d` for any ``convolution (b h w e) -> (b h w e)``."""
    width = layout.grid[1]

    def over_rows(full: Tensor) -> Tensor:
        # A condensed sequence is laid out in rows of the grid's width, the last filled up with zeros.
        length = full.shape[1]
        if spare := -length % width:
            full = F.pad(full, (0, 0, 0, spare))
        return convolution(full.unflatten(1, (-1, width))).flatten(1, 2)[:, :length]

    return _align_conv(layout, x, over_rows)


def _align_conv(layout: Layout, x: Tensor, convolution: Convolution) -> Tensor:
    if layout.position is None:
        return convolution(x)
    conv = layout.alignment.conv
    return (CONVOLUTION[conv] if isinstance(conv, str) else conv)(layout, x, convolution)


def _condensed(layout: Layout, x: Tensor, convolution: Convolution) -> Tensor:
    return convolution(x)


def _zeros(layout: Layout, x: Tensor, convolution: Convolution) -> Tensor:
    assert layout.position is not None
    full = group_sum(x, layout.position, layout.full_length)
    return take(convolution(full), layout.position)


def _held(layout: Layout, x: Tensor, convolution: Convolution) -> Tensor:
    if layout.owner is None or layout.size is None:
        raise ValueError("a held convolution needs positions with owners, got tokens reduced without an owner")
    full = convolution(take(x, layout.owner))
    return group_sum(full, layout.owner, layout.length) / layout.size[..., None].to(full.dtype)


def pool(layout: Layout, x: Tensor) -> Tensor:
    """Mean over the positions ``(b l d) -> (b d)``: with ``hold`` a token counts for all the positions it owns."""
    if layout.alignment.scan != "hold" or layout.size is None:
        return x.mean(1)
    weight = layout.size / layout.full_length
    return (x * weight[..., None].to(x.dtype)).sum(1)


SCAN_TIME: dict[str, Callable[..., ScanTime]] = {"none": _none_time, "decay": _decay_time, "hold": _hold_time}
GAP_DELTA = {"previous": _previous_delta, "own": _own_delta, "bias": _bias_delta}
CONVOLUTION: dict[str, Callable[[Layout, Tensor, Convolution], Tensor]] = {
    "condensed": _condensed,
    "zeros": _zeros,
    "held": _held,
}
