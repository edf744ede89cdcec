"""The selective scan of state space models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skimba.ops import _library, _reference
from skimba.ops._checks import Backend, choose
from skimba.ops.scan_inputs import ScanInputs, check_scan


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    gap: Tensor | None = None,
    step: Tensor | None = None,
    missing: Tensor | None = None,
    order: Tensor | None = None,
    *,
    reverse: bool = False,
    log_A: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Run a diagonal state space model over the tokens of a sequence.

    ::

        δ_t = softplus(delta_t + delta_bias),   Δ_t = step_t · δ_t
        h_t = exp((Δ_t + gap_t + missing_t · δ_{t-1}) A) h_{t-1} + Δ_t B_t u_t        (e n), from h = 0
        y_t = (C_t h_t + D u_t) · silu(z_t)

    Δ, A, h are float32 for every dtype of the data (float64 on the reference for float64 data).

    Args:
        u: ``(b l e)`` input, l >= 1. Like delta, B, C and z it may be a view with any strides on b and l.
        delta: ``(b l e)`` time step before softplus.
        A: ``(e n)`` negative decay rates.
        B: ``(b l n)`` input map.
        C: ``(b l n)`` output map.
        D: ``(e)`` skip connection; none if absent.
        z: ``(b l e)`` gate; none if absent.
        delta_bias: ``(e)``.
        gap: ``(b l)`` or ``(b l e)``, >= 0: time that passes before a step without any input.
        step: ``(b l)``, >= 0: factor on the time step.
        missing: ``(b l)``, >= 0: number of tokens missing before a step; each lets the step before pass once more, without
            input. The same as a ``gap`` made of the previous steps' times, at no cost. No gradient flows to it.
        order: ``(l)`` or ``(b l)`` int32, the tokens in the order in which they are visited: step t reads row ``order[t]`` of u
            and z and writes that of y, but row t of all else. The same as gathering u and z and scattering y, at no cost.
        reverse: from the last token to the first, without a flip of the data.
        log_A: ``A`` holds log(-A), which is what models keep; at no cost.
        backend: a key of :data:`BACKENDS`, or ``auto``: ``cpu`` where it can run, else ``reference``.

    Returns:
        ``(b l e)`` in the dtype of ``u``. Gradients flow to every tensor.

    Raises:
        ValueError: a wrong shape, device or backend, an empty axis, a negative or NaN ``gap``, ``step`` or ``missing``, an
            ``order`` that does not hold each token once.
        TypeError: a dtype that is not floating, or that the named backend does not take.
        RuntimeError: the named backend cannot run here.

    Source: Gu & Dao, "Mamba" (arXiv 2312.00752), Algorithm 2, B by Euler's rule as in the official kernels; ``gap`` is
    the alignment of Zhan et al. (arXiv 2409.18962), with the exponents of a run of missing tokens added up.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, gap, step, missing, order)
    check_scan(inputs)
    return BACKENDS[choose(backend, u)](inputs, reverse, log_A)


def _float(x: Tensor | None) -> Any:
    return x if x is None or x.dtype == torch.float32 else x.float()


def _native(s: ScanInputs, reverse: bool, log_A: bool) -> Tensor:
    """Brings the dtypes to what the kernel takes: one for the data (float32 if mixed), float32 for all else."""
    u, delta, A, B, C, D, z, delta_bias, gap, step, missing, order = s
    if any(x is not None and x.dtype != u.dtype for x in (delta, B, C, z)):
        same = s._replace(u=u.float(), delta=delta.float(), B=B.float(), C=C.float(), z=_float(z))
        return _native(same, reverse, log_A).to(u.dtype)
    A, D, delta_bias, gap, step, missing = map(_float, (A, D, delta_bias, gap, step, missing))
    operator = torch.ops.skimba.selective_scan
    return _library.call(operator, u, delta, A, B, C, D, z, delta_bias, gap, step, missing, order, reverse, log_A)


BACKENDS: dict[str, Callable[[ScanInputs, bool, bool], Tensor]] = {
    "reference": _reference.selective_scan,
    "cpu": _native,
}
