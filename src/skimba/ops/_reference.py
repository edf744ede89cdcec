"""Readable reference implementations in plain PyTorch: the ground truth of every kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.ops.scan_inputs import NONNEGATIVE, ScanInputs
from skimba.ops.source import check_source, mean_shown, show


def selective_scan(s: ScanInputs, reverse: bool, log_A: bool) -> Tensor:
    """See :func:`skimba.selective_scan`. One step after the other, in float32 (float64 for such inputs)."""
    if log_A:
        A = -s.A.to(torch.promote_types(s.A.dtype, torch.float32)).exp()
        return selective_scan(s._replace(A=A), reverse, False)
    if s.order is not None:
        return _ordered_scan(s, s.order, reverse)
    _check_nonnegative(s)
    dtype = torch.promote_types(s.u.dtype, torch.float32)
    u, delta, B, C = (x.to(dtype) for x in (s.u, s.delta, s.B, s.C))
    if s.delta_bias is not None:
        delta = delta + s.delta_bias
    dt = F.softplus(delta)  # (b l e)
    before = dt.roll(-1 if reverse else 1, dims=1)  # the first step's is arbitrary: its state is zero
    if s.step is not None:
        dt = dt * s.step[..., None]
    time = dt
    if s.missing is not None:
        time = time + s.missing.detach()[..., None] * before
    if s.gap is not None:
        time = time + (s.gap[..., None] if s.gap.dim() == 2 else s.gap)
    inputs = dt * u
    h = u.new_zeros(u.shape[0], u.shape[2], s.A.shape[1])  # (b e n)
    ys: list[Tensor] = []
    steps = range(u.shape[1])
    for t in reversed(steps) if reverse else steps:
        h = torch.exp(time[:, t, :, None] * s.A) * h + inputs[:, t, :, None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1))
    y = torch.stack(ys[::-1] if reverse else ys, dim=1)
    if s.D is not None:
        y = y + s.D * u
    if s.z is not None:
        y = y * F.silu(s.z.to(dtype))
    return y.to(s.u.dtype)


def _ordered_scan(s: ScanInputs, order: Tensor, reverse: bool) -> Tensor:
    batch, length = s.u.shape[:2]
    index = order.long().expand(batch, length)
    if not torch.equal(index.sort(1).values, torch.arange(length, device=index.device).expand(batch, length)):
        raise ValueError("order must hold each token once")
    rows = index[..., None].expand_as(s.u)  # (b l e)
    z = None if s.z is None else s.z.gather(1, rows)
    y = selective_scan(s._replace(u=s.u.gather(1, rows), z=z, order=None), reverse, False)
    return torch.zeros_like(y).scatter(1, rows, y)


def _check_nonnegative(s: ScanInputs) -> None:
    """Not while tracing, where there are no values."""
    for name in NONNEGATIVE:
        x = getattr(s, name)
        has_values = type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta"
        if has_values and not torch.compiler.is_compiling() and not (x >= 0).all():
            raise ValueError(f"{name} must be >= 0 and not NaN, got a minimum of {float(x.detach().min())}")


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, reverse: bool) -> Tensor:
    """See :func:`skimba.ops.causal_conv1d`."""
    if source is not None:
        check_source(source, x.shape[1])
        return mean_shown(causal_conv1d(show(x, source), weight, bias, None, reverse), source, x.shape[1])
    channels, width = weight.shape
    padding = (0, width - 1) if reverse else (width - 1, 0)
    kernel = (weight.flip(1) if reverse else weight)[:, None].to(x.dtype)
    y = F.conv1d(F.pad(x.transpose(1, 2), padding), kernel, bias.to(x.dtype), groups=channels)
    return F.silu(y).transpose(1, 2)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None) -> Tensor:
    """See :func:`skimba.ops.depthwise_conv2d`."""
    if source is not None:
        check_source(source, x.shape[1])
        flat = source.flatten(1)
        grid = show(x, flat).unflatten(1, source.shape[1:])
        return mean_shown(depthwise_conv2d(grid, weight, bias, None).flatten(1, 2), flat, x.shape[1])
    padding = (weight.shape[1] // 2, weight.shape[2] // 2)
    channels_first = x.permute(0, 3, 1, 2)
    y = F.conv2d(channels_first, weight[:, None].to(x.dtype), bias.to(x.dtype), padding=padding, groups=weight.shape[0])
    return F.silu(y).permute(0, 2, 3, 1)


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See :func:`skimba.ops.add_rms_norm`."""
    total = x.to(torch.promote_types(x.dtype, torch.float32))
    if residual is not None:
        total = total + residual
    y = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight
    return y.to(x.dtype), total
