"""Depthwise convolutions with SiLU, channels last."""

from __future__ import annotations

from torch import Tensor

from skimba.ops.backends import Backend, run
from skimba.ops.inputs import CAUSAL, GRID, CausalInputs, GridInputs
from skimba.ops.library import CAUSAL_CONV1D, DEPTHWISE_CONV2D


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    source: Tensor | None = None,
    reverse: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """``y_t = silu(bias + Σ_j weight[:, j] x_{t-(k-1)+j})``, zeros outside the sequence.

    Args:
        x: ``(b l e)``, any strides on b and l.
        weight: ``(e k)``, k >= 1.
        bias: ``(e)``.
        source: ``(b L)`` int32: the token of ``x`` that each position of a longer sequence shows, or -1 for zeros. The
            convolution then runs over that sequence, and a token gets the mean over the positions that show it (zeros if
            none does).
        reverse: the mirror image, which sees the tokens after t: ``x_{t+(k-1)-j}``.
        backend: as of :func:`skimba.ops.selective_scan`.

    Returns:
        ``(b l e)`` in the dtype of ``x``.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`; IndexError for a token in ``source`` that is
        not there.

    Source: the convolution of Mamba (arXiv 2312.00752, section 3.4); the reverse direction is that of Vim
    (arXiv 2401.09417).
    """
    inputs = CausalInputs(x, weight, bias, source, reverse)
    CAUSAL.check(inputs)
    return run(CAUSAL_CONV1D, inputs, backend)


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, *, source: Tensor | None = None, backend: Backend = "auto"
) -> Tensor:
    """``silu`` of a depthwise convolution over a grid, zeros outside, of the same size.

    Args:
        x: ``(b h w e)``, any strides on b, h and w; ``(b l e)`` with a source.
        weight: ``(e kh kw)``, odd sizes.
        bias: ``(e)``.
        source: ``(b h w)`` int32: the token of ``x (b l e)`` that each position of the grid shows, or -1 for zeros; a token
            gets the mean over the positions that show it.
        backend: as of :func:`skimba.ops.selective_scan`.

    Returns:
        The shape and dtype of ``x``.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`.

    Source: the convolution of PlainMamba (arXiv 2403.17695).
    """
    inputs = GridInputs(x, weight, bias, source)
    GRID.check(inputs)
    if weight.shape[1] % 2 == 0 or weight.shape[2] % 2 == 0:
        raise ValueError(f"weight must have shape (e kh kw) with odd kh and kw, got {tuple(weight.shape)}")
    if x.dim() != (4 if source is None else 3):
        raise ValueError(f"x must be (b h w e) without a source and (b l e) with one, got {tuple(x.shape)}")
    return run(DEPTHWISE_CONV2D, inputs, backend)
