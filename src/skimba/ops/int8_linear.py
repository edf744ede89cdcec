"""A linear product in 8-bit integers."""

from __future__ import annotations

from torch import Tensor

from skimba.ops.backends import Backend, run
from skimba.ops.inputs import INT8, Int8Inputs
from skimba.ops.library import INT8_LINEAR


def int8_linear(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, *, backend: Backend = "auto"
) -> Tensor:
    """``x · (weight · scale)ᵀ + bias``, the product in 8-bit integers.

    Each row of x (one token) gets a scale of its own, its largest magnitude / 127, so that no result depends on the rest of the
    batch. The product of whole numbers is exact (32 bits, torch's ``_int_mm``, which is oneDNN on a CPU).

    Args:
        x: ``(b l d)``, a view with any strides on b and l. A row with a value that is not finite gives NaN.
        weight: ``(e d)`` int8, of :func:`int8_weight`.
        scale: ``(e)``, of the weight's rows.
        bias: ``(e)``; none if absent.
        backend: as of :func:`skimba.ops.selective_scan`.

    Returns:
        ``(b l e)`` in the dtype of x. It has no gradient.

    Raises:
        ValueError, TypeError: as :func:`skimba.ops.selective_scan`.
        RuntimeError: the named backend cannot run here; a gradient is asked for.

    Source: Dettmers et al., "LLM.int8()" (arXiv 2208.07339), section 2 (a scale for each row of both), without its 16-bit part.
    """
    inputs = Int8Inputs(x, weight, scale, bias)
    INT8.check(inputs)
    return run(INT8_LINEAR, inputs, backend)


def int8_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight ``(e d)`` as int8 in -127 … 127, and a float32 scale ``(e)`` for each row: weight ≈ int8 · scale.

    A row of zeros has the scale 0.
    """
    wide = weight.detach().float()
    scale = wide.abs().amax(1) / 127
    values = (wide / scale[:, None]).nan_to_num(0.0)  # 0 / 0 where a row is zero
    return values.round().clamp(-127, 127).char(), scale
