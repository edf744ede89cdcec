"""A residual addition and the RMSNorm of the sum, in one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skimba.ops import _library, _reference
from skimba.ops._checks import Backend, check, check_data, choose


def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float = 1e-5, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """``r = residual + x`` and ``r / sqrt(mean(r²) + eps) · weight``, over the last axis.

    Args:
        x: ``(b l d)``.
        residual: ``(b l d)`` float32, or None where x begins the stream.
        weight: ``(d)``.
        eps: added to the mean of squares.
        backend: a key of :data:`BACKENDS`, or ``auto``: ``cpu`` where it can run, else ``reference``.

    Returns:
        The norm ``(b l d)`` in the dtype of ``x``, and the sum ``(b l d)`` in float32 (float64 on the reference for such data).

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467), fused with the addition as in
    the official code of Mamba.
    """
    check_data("x", x, "b l d")
    check("weight", weight, ((x.shape[2],),), x)
    if residual is not None:
        check("residual", residual, (tuple(x.shape),), x)
    return BACKENDS[choose(backend, x)](x, residual, weight, eps)


def _native(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    residual = residual if residual is None else residual.float()
    y, total = _library.call(torch.ops.skimba.add_rms_norm, x, residual, weight.float(), eps)
    return y, total


BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"reference": _reference.add_rms_norm, "cpu": _native}
