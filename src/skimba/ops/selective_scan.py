"""The selective scan of state space models."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor
from typing_extensions import Unpack  # of the standard library from Python 3.11 on

from skimba.ops.backends import Backend, run
from skimba.ops.inputs import SCAN, ScanInputs
from skimba.ops.library import SELECTIVE_SCAN


class ScanTime(TypedDict, total=False):
    """Options of :func:`selective_scan` that say what time passes at a step."""

    gap: Tensor | None
    step: Tensor | None
    hold: Tensor | None
    missing: Tensor | None


class ScanOptions(ScanTime, total=False):
    """Options of :func:`selective_scan`."""

    order: Tensor | None
    reverse: bool
    log_A: bool


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    backend: Backend = "auto",
    **options: Unpack[ScanOptions],
) -> Tensor:
    """Run a diagonal state space model over the tokens of a sequence.

    ::

        δ_t = softplus(delta_t + delta_bias),   Δ_t = step_t · δ_t,   a_t = exp(Δ_t A)
        h_t = exp((hold_t · Δ_t + gap_t + missing_t · δ_{t-1}) A) h_{t-1} + (1 + a_t + … + a_t^(hold_t - 1)) Δ_t B_t u_t
        y_t = (C_t h_t + D u_t) · silu(z_t)                                           h (e n), from 0

    Δ, A, h are float32 for every dtype of the data (float64 on the reference for float64 data).

    Args:
        u: ``(b l e)`` input, l >= 1. Like delta, B, C and z it may be a view with any strides on b and l.
        delta: ``(b l e)`` time step before softplus.
        A: ``(e n)`` negative decay rates.
        B, C: ``(b l n)`` input and output map.
        D: ``(e)`` skip connection; none if absent.
        z: ``(b l e)`` gate; none if absent.
        delta_bias: ``(e)``.
        backend: ``auto``: C++ kernels for float32 and bfloat16 on the CPU, else the reference; or a key of
            :data:`skimba.ops.BACKENDS`.
        gap: an option, ``(b l)`` or ``(b l e)``, >= 0, may be infinite: time that passes before a step without any input.
        step: an option, ``(b l)``, >= 0: factor on the time step.
        hold: an option, ``(b l)``, >= 0: number of positions that a token stands for, exactly as if it were repeated. Between
            whole numbers the sum is ``expm1(hold Δ A) / expm1(Δ A)``; at 0 the token adds nothing and takes no time.
        missing: an option, ``(b l)``, >= 0: number of tokens missing before a step; each lets the time of the step before pass
            once more, without input. No gradient flows to it.
        order: an option, ``(l)`` or ``(b l)`` int32, the order in which tokens are visited: step t reads row ``order[t]`` of u
            and z and writes that of y, but row t of all else.
        reverse: an option: from the last token to the first. log_A: an option: ``A`` holds log(-A), as models keep it.

    Returns:
        ``(b l e)`` in the dtype of ``u``. Gradients flow to every tensor but ``missing`` and ``order``; of derivatives only the
        first, backwards (``backend="reference"`` has them all).

    Raises:
        ValueError: a wrong shape, device or backend, an empty axis, a negative or NaN ``gap``, ``step``, ``hold`` or
            ``missing``, an infinite one of the last three, an ``order`` that does not hold each token once.
        TypeError: a required tensor is missing or not a tensor, a dtype that is not floating or that the named backend does not
            take, an unknown option.
        RuntimeError: the named backend cannot run here; forward-mode differentiation, or a second derivative.

    Source: Gu & Dao, "Mamba" (arXiv 2312.00752), Algorithm 2, B by Euler's rule as in the official kernels; ``gap`` is
    the alignment of Zhan et al. (arXiv 2409.18962), exponents of a run of missing tokens added up. ``hold`` is ours.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, **options)
    SCAN.check(inputs)
    return run(SELECTIVE_SCAN, inputs, backend)
