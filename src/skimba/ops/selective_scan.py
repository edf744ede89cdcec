"""The selective scan of state space models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skimba.ops import _library, _reference
from skimba.ops._checks import Backend, check, check_data, check_nonnegative, choose


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
    _check(u, delta, A, B, C, D, z, delta_bias, gap, step, missing, order)
    return BACKENDS[choose(backend, u)](u, delta, A, B, C, D, z, delta_bias, gap, step, missing, order, reverse)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    gap: Tensor | None,
    step: Tensor | None,
    missing: Tensor | None,
    order: Tensor | None,
) -> None:
    check_data("u", u, "b l e")
    batch, length, channels = data = tuple(u.shape)
    if A.dim() != 2 or A.shape[1] == 0:
        raise ValueError(f"A must have shape (e n) with n >= 1, got {tuple(A.shape)}")
    states = A.shape[1]
    check("delta", delta, (data,), u)
    check("A", A, ((channels, states),), u)
    check("B", B, ((batch, length, states),), u)
    check("C", C, ((batch, length, states),), u)
    if D is not None:
        check("D", D, ((channels,),), u)
    if z is not None:
        check("z", z, (data,), u)
    if delta_bias is not None:
        check("delta_bias", delta_bias, ((channels,),), u)
    if gap is not None:
        check("gap", gap, ((batch, length), data), u)
        check_nonnegative("gap", gap)
    for name, per_token in (("step", step), ("missing", missing)):
        if per_token is not None:
            check(name, per_token, ((batch, length),), u)
            check_nonnegative(name, per_token)
    if order is not None:
        if tuple(order.shape) not in ((length,), (batch, length)):
            raise ValueError(f"order must have shape {(length,)} or {(batch, length)}, got {tuple(order.shape)}")
        if order.dtype != torch.int32 or order.device != u.device:
            raise TypeError(f"order must be int32 on {u.device}, got {order.dtype} on {order.device}")


def _float(x: Tensor | None) -> Tensor | None:
    return x if x is None or x.dtype == torch.float32 else x.float()


def _native(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    gap: Tensor | None,
    step: Tensor | None,
    missing: Tensor | None,
    order: Tensor | None,
    reverse: bool,
) -> Tensor:
    """Brings the dtypes to what the kernel takes: one for the data (float32 if mixed), float32 for all else."""
    dtype = u.dtype
    if any(x is not None and x.dtype != dtype for x in (delta, B, C, z)):
        u, delta, B, C = u.float(), delta.float(), B.float(), C.float()
        z = _float(z)
    A, D, delta_bias, gap = A.float(), _float(D), _float(delta_bias), _float(gap)
    step, missing = _float(step), _float(None if missing is None else missing.detach())
    scan = torch.ops.skimba.selective_scan
    return _library.call(scan, u, delta, A, B, C, D, z, delta_bias, gap, step, missing, order, reverse).to(dtype)


BACKENDS: dict[str, Callable[..., Tensor]] = {"reference": _reference.selective_scan, "cpu": _native}
