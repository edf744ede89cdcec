"""Depthwise convolutions with SiLU, channels last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skimba.ops import _library, _reference
from skimba.ops._checks import Backend, check, check_data, choose


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
        backend: a key of :data:`BACKENDS_1D`, or ``auto``: ``cpu`` where it can run, else ``reference``.

    Returns:
        ``(b l e)`` in the dtype of ``x``.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`; IndexError for a token in ``source`` that is
        not there.

    Source: the convolution of Mamba (arXiv 2312.00752, section 3.4); the reverse direction is that of Vim
    (arXiv 2401.09417).
    """
    check_data("x", x, "b l e")
    if weight.dim() != 2 or weight.shape[1] == 0:
        raise ValueError(f"weight must have shape (e k) with k >= 1, got {tuple(weight.shape)}")
    check("weight", weight, ((x.shape[2], weight.shape[1]),), x)
    check("bias", bias, ((x.shape[2],),), x)
    if source is not None:
        _check_source(source, x, 2)
    return BACKENDS_1D[choose(backend, x)](x, weight, bias, source, reverse)


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
        backend: a key of :data:`BACKENDS_2D`, or ``auto``: ``cpu`` where it can run, else ``reference``.

    Returns:
        The shape and dtype of ``x``.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`.

    Source: the convolution of PlainMamba (arXiv 2403.17695).
    """
    check_data("x", x, "b h w e" if source is None else "b l e")
    if weight.dim() != 3 or weight.shape[1] % 2 == 0 or weight.shape[2] % 2 == 0:
        raise ValueError(f"weight must have shape (e kh kw) with odd kh and kw, got {tuple(weight.shape)}")
    check("weight", weight, ((x.shape[-1], weight.shape[1], weight.shape[2]),), x)
    check("bias", bias, ((x.shape[-1],),), x)
    if source is not None:
        _check_source(source, x, 3)
    return BACKENDS_2D[choose(backend, x)](x, weight, bias, source)


def _check_source(source: Tensor, x: Tensor, rank: int) -> None:
    if source.dim() != rank or source.shape[0] != x.shape[0] or 0 in source.shape[1:]:
        axes = "(b L)" if rank == 2 else "(b h w)"
        raise ValueError(f"source must be {axes} for the {x.shape[0]} images of x, got {tuple(source.shape)}")
    if source.dtype != torch.int32:
        raise TypeError(f"source must be int32, got {source.dtype}")
    if source.device != x.device:
        raise ValueError(f"source must be on {x.device}, got {source.device}")


def _native(x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, reverse: bool = False) -> Tensor:
    return _library.call(torch.ops.skimba.depthwise_conv, x, weight.float(), bias.float(), source, reverse)


BACKENDS_1D: dict[str, Callable[..., Tensor]] = {"reference": _reference.causal_conv1d, "cpu": _native}
BACKENDS_2D: dict[str, Callable[..., Tensor]] = {"reference": _reference.depthwise_conv2d, "cpu": _native}
