"""Readable reference implementations in plain PyTorch: the ground truth of every kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.ops.source import check_source, mean_shown, show


def selective_scan(
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
    """See :func:`skimba.selective_scan`. One step after the other, in float32 (float64 for such inputs)."""
    if order is not None:
        index = order.long().expand(u.shape[:2])[..., None].expand_as(u)  # (b l e)
        if not torch.equal(index[..., 0].sort(1).values, torch.arange(u.shape[1], device=u.device).expand(u.shape[:2])):
            raise ValueError("order must hold each token once")
        z = None if z is None else z.gather(1, index)
        u = u.gather(1, index)
        y = selective_scan(u, delta, A, B, C, D, z, delta_bias, gap, step, missing, None, reverse)
        return torch.zeros_like(y).scatter(1, index, y)
    dtype = torch.promote_types(u.dtype, torch.float32)
    x, dt, B, C = (t.to(dtype) for t in (u, delta, B, C))
    if delta_bias is not None:
        dt = dt + delta_bias
    dt = F.softplus(dt)  # (b l e)
    before = dt.roll(-1 if reverse else 1, dims=1)  # the first step's is arbitrary: its state is zero
    if step is not None:
        dt = dt * step[..., None]
    time = dt
    if missing is not None:
        time = time + missing.detach()[..., None] * before
    if gap is not None:
        time = time + (gap[..., None] if gap.dim() == 2 else gap)
    inputs = dt * x
    h = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])  # (b e n)
    ys: list[Tensor] = []
    steps = range(x.shape[1])
    for t in reversed(steps) if reverse else steps:
        h = torch.exp(time[:, t, :, None] * A) * h + inputs[:, t, :, None] * B[:, t, None]
        ys.append((h * C[:, t, None]).sum(-1))
    y = torch.stack(ys[::-1] if reverse else ys, dim=1)
    if D is not None:
        y = y + D * x
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype)


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
