"""A residual addition and the RMSNorm of the sum, in one pass."""

from __future__ import annotations

from torch import Tensor

from skimba.ops.backends import Backend, run
from skimba.ops.inputs import NORM, NormInputs
from skimba.ops.library import ADD_RMS_NORM


def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float = 1e-5, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """``r = residual + x`` and ``r / sqrt(mean(r²) + eps) · weight``, over the last axis.

    Args:
        x: ``(b l d)``.
        residual: ``(b l d)`` float32, or None where x begins the stream.
        weight: ``(d)``.
        eps: added to the mean of squares.
        backend: as of :func:`skimba.ops.selective_scan`.

    Returns:
        The norm ``(b l d)`` in the dtype of ``x``, and the sum ``(b l d)`` in float32 (float64 on the reference for such data).

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467), fused with the addition as in
    the official code of Mamba.
    """
    inputs = NormInputs(x, residual, weight, eps)
    NORM.check(inputs)
    y, total = run(ADD_RMS_NORM, inputs, backend)
    return y, total
