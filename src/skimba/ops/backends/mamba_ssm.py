"""The ``mamba_ssm`` backend: the scan by the CUDA kernel of the package of that name, where it is installed.

That kernel knows one time per step and no alignment, so its operands are chosen such that it computes the same: the time that
passes as a whole, and an input that is smaller by as much as the time is longer.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.ops import library
from skimba.ops.backends.reference import held_sum
from skimba.ops.inputs import ScanInputs
from skimba.ops.library import SELECTIVE_SCAN, Operator

DEVICES = ("cuda",)
DTYPES = (torch.float32, torch.bfloat16)
SHORTEST = 1e-12  # passes in every step, so that what is added in a step without time has a derivative
LONGEST = 1e30  # an infinite gap: it empties the state, and what is divided by it stays a normal number


def reason() -> str | None:
    """Why it cannot run."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return "the package mamba_ssm is not installed"
    if importlib.util.find_spec("selective_scan_cuda") is None:
        return "mamba_ssm was installed without its kernel; build it with MAMBA_KEEP_CUDA_BUILD=TRUE"
    return None


def run(operator: Operator, inputs: Any) -> Any:
    """The scan by mamba_ssm, or the reason why not; other operators as torch's dispatcher has them."""
    if why := reason():
        raise RuntimeError(f"backend 'mamba_ssm' cannot run: {why}")
    x = inputs[0]
    if x.device.type not in DEVICES or x.dtype not in DTYPES:
        raise TypeError(f"backend 'mamba_ssm' needs float32 or bfloat16 on cuda, got {x.dtype} on {x.device}")
    if operator.name != SELECTIVE_SCAN.name:
        return library.call(operator.forward, *inputs)
    return scan(inputs, importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn)


def scan(s: ScanInputs, function: Callable[..., Tensor]) -> Tensor:
    """The scan by a function of the signature of ``selective_scan_fn``.

    With ``τ`` all time that passes in a step, δ' = τ and u' = u Δ / τ, so that δ' B u' = Δ B u. A held input is multiplied by a
    factor of its own for each channel and state: B gets an axis of channels. The skip connection and the gate are ours, since
    they need u as it was.
    """
    A = -s.A.float().exp() if s.log_A else s.A.float()
    rows = None if s.order is None else s.order.long().expand(s.u.shape[:2])[..., None].expand_as(s.u)
    u = s.u if rows is None else s.u.gather(1, rows)
    z = s.z if s.z is None or rows is None else s.z.gather(1, rows)
    dt, time = _times(s)
    time = time + SHORTEST
    scaled = u.float() * (dt / time)
    B = s.B.transpose(1, 2)  # (b n l)
    if s.hold is not None:
        factor = held_sum(dt.transpose(1, 2)[:, :, None] * A[..., None], _allowed(s.hold)[:, None, None])  # (b e n l)
        B = B[:, None] * factor
    by_token = (scaled.transpose(1, 2), time.transpose(1, 2), B, s.C.transpose(1, 2))
    operands = [x.flip(-1) if s.reverse else x for x in by_token]
    scaled, time, B, C = (x.to(s.u.dtype).contiguous() for x in operands)  # unit stride on the tokens
    y = function(scaled, time, A.contiguous(), B, C, delta_softplus=False)
    y = (y.flip(-1) if s.reverse else y).transpose(1, 2).float()
    if s.D is not None:
        y = y + s.D * u
    if z is not None:
        y = y * F.silu(z.float())
    if rows is not None:
        y = torch.zeros_like(y).scatter(1, rows, y)
    return y.to(s.u.dtype)


def _times(s: ScanInputs) -> tuple[Tensor, Tensor]:
    """Δ and all time that passes, ``(b l e)`` in float32."""
    delta = s.delta.float()
    dt = F.softplus(delta if s.delta_bias is None else delta + s.delta_bias)
    before = dt.roll(-1 if s.reverse else 1, dims=1)  # the first step's is arbitrary: its state is zero
    if s.step is not None:
        dt = dt * _allowed(s.step)[..., None]
    time = dt if s.hold is None else dt * _allowed(s.hold)[..., None]
    if s.missing is not None:
        time = time + _allowed(s.missing.detach())[..., None] * before
    if s.gap is not None:
        gap = s.gap.where(s.gap >= 0, torch.nan)
        time = time + (gap[..., None] if gap.dim() == 2 else gap)
    return dt, time.clamp(max=LONGEST)


def _allowed(count: Tensor) -> Tensor:
    """NaN in place of values that are not allowed: to refuse them would mean to wait for the GPU."""
    return count.where((count >= 0) & (count < torch.inf), torch.nan)
