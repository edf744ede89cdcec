"""The ``reference`` backend: readable implementations in plain PyTorch, the ground truth of every kernel.

They run on any device and are differentiated by torch. Under ``CompositeExplicitAutograd`` they also stand behind the
operators wherever no kernels are registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.ops.inputs import CausalInputs, GridInputs, Int8Inputs, NormInputs, SampleInputs, ScanInputs
from skimba.ops.library import (
    ADD_RMS_NORM,
    CAUSAL_CONV1D,
    DEPTHWISE_CONV2D,
    INT8_LINEAR,
    SAMPLE_MAPS,
    SELECTIVE_SCAN,
    Kernels,
    Operator,
    implement,
)
from skimba.ops.source import check_source, mean_shown, show

LEAST_ROW = 1e-30  # rows of 8-bit integers that hold nothing larger count as zeros: 127 / largest must not overflow


def selective_scan(s: ScanInputs) -> Tensor:
    """See :func:`skimba.selective_scan`. One step after the other, in float32 (float64 for such inputs)."""
    if s.log_A:
        A = -s.A.to(torch.promote_types(s.A.dtype, torch.float32)).exp()
        return selective_scan(s._replace(A=A, log_A=False))
    if s.order is not None:
        return _ordered_scan(s, s.order)
    _check_times(s)
    dtype = torch.promote_types(s.u.dtype, torch.float32)
    u, B, C = (x.to(dtype) for x in (s.u, s.B, s.C))
    dt, time = passing_time(s)  # (b l e) each
    inputs = dt * u
    h = u.new_zeros(u.shape[0], u.shape[2], s.A.shape[1])  # (b e n)
    ys: list[Tensor] = []
    steps = range(u.shape[1])
    for t in reversed(steps) if s.reverse else steps:
        added = inputs[:, t, :, None] * B[:, t, None]
        if s.hold is not None:
            added = added * held_sum(dt[:, t, :, None] * s.A, s.hold[:, t, None, None].to(dtype))
        h = torch.exp(time[:, t, :, None] * s.A) * h + added
        ys.append((h * C[:, t, None]).sum(-1))
    y = torch.stack(ys[::-1] if s.reverse else ys, dim=1)
    if s.D is not None:
        y = y + s.D * u
    if s.z is not None:
        y = y * F.silu(s.z.to(dtype))
    return y.to(s.u.dtype)


def passing_time(s: ScanInputs) -> tuple[Tensor, Tensor]:
    """For each step the length Δ of its token's own, and the time that passes from the state before to the one after it, both
    ``(b l e)``; no ``order`` changes them. At the first step, whose state before is zero, the second is arbitrary."""
    dtype = torch.promote_types(s.u.dtype, torch.float32)
    delta = s.delta.to(dtype)
    if s.delta_bias is not None:
        delta = delta + s.delta_bias
    dt = F.softplus(delta)  # (b l e)
    before = dt.roll(-1 if s.reverse else 1, dims=1)
    if s.step is not None:
        dt = dt * s.step[..., None]
    time = dt if s.hold is None else dt * s.hold[..., None]
    if s.missing is not None:
        time = time + s.missing.detach()[..., None] * before
    if s.gap is not None:
        time = time + (s.gap[..., None] if s.gap.dim() == 2 else s.gap)
    return dt, time.clamp(max=torch.finfo(dtype).max)  # an infinite gap: 0 · infinity is NaN


def held_sum(exponent: Tensor, held: Tensor) -> Tensor:
    """``1 + a + … + a^(held-1)`` with ``a = exp(exponent)``, as ``expm1(held · exponent) / expm1(exponent)`` between whole
    numbers too; ``held`` where the exponent is 0."""
    return held * _expm1_ratio(held * exponent) / _expm1_ratio(exponent)


def _expm1_ratio(x: Tensor) -> Tensor:
    """``expm1(x) / x``; near 0 its series, whose derivatives do not cancel."""
    near = x.abs() < 0.03
    far = x.where(~near, 1.0)
    x = x.where(near, 0.0)
    series = torch.ones_like(x)
    for divisor in (8, 7, 6, 5, 4, 3, 2):
        series = 1 + x / divisor * series
    return torch.where(near, series, torch.expm1(far) / far)


def _ordered_scan(s: ScanInputs, order: Tensor) -> Tensor:
    batch, length = s.u.shape[:2]
    index = order.long().expand(batch, length)
    if not torch.equal(index.sort(1).values, torch.arange(length, device=index.device).expand(batch, length)):
        raise ValueError("order must hold each token once")
    rows = index[..., None].expand_as(s.u)  # (b l e)
    z = None if s.z is None else s.z.gather(1, rows)
    y = selective_scan(s._replace(u=s.u.gather(1, rows), z=z, order=None))
    return torch.zeros_like(y).scatter(1, rows, y)


def _check_times(s: ScanInputs) -> None:
    """Not while tracing, where there are no values."""
    for name in ("gap", "step", "hold", "missing"):
        x = getattr(s, name)
        has_values = type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta"
        if not has_values or torch.compiler.is_compiling():
            continue
        good, allowed = x >= 0, ">= 0"
        if name != "gap":
            good, allowed = good & x.isfinite(), ">= 0, finite"
        if not good.all():
            raise ValueError(f"{name} must be {allowed} and not NaN, got {float(x.detach()[~good][0])}")


def causal_conv1d(s: CausalInputs) -> Tensor:
    """See :func:`skimba.ops.causal_conv1d`."""
    x, source = s.x, s.source
    if source is not None:
        check_source(source, x.shape[1])
        return mean_shown(causal_conv1d(s._replace(x=show(x, source), source=None)), source, x.shape[1])
    channels, width = s.weight.shape
    padding = (0, width - 1) if s.reverse else (width - 1, 0)
    kernel = (s.weight.flip(1) if s.reverse else s.weight)[:, None].to(x.dtype)
    y = F.conv1d(F.pad(x.transpose(1, 2), padding), kernel, s.bias.to(x.dtype), groups=channels)
    return F.silu(y).transpose(1, 2)


def depthwise_conv2d(s: GridInputs) -> Tensor:
    """See :func:`skimba.ops.depthwise_conv2d`."""
    x, source = s.x, s.source
    if source is not None:
        check_source(source, x.shape[1])
        flat = source.flatten(1)
        grid = show(x, flat).unflatten(1, source.shape[1:])
        return mean_shown(depthwise_conv2d(s._replace(x=grid, source=None)).flatten(1, 2), flat, x.shape[1])
    channels, height, width = s.weight.shape
    y = F.conv2d(
        x.permute(0, 3, 1, 2),
        s.weight[:, None].to(x.dtype),
        s.bias.to(x.dtype),
        padding=(height // 2, width // 2),
        groups=channels,
    )
    return F.silu(y).permute(0, 2, 3, 1)


def sample_maps(s: SampleInputs) -> Tensor:
    """See :func:`skimba.ops.sample_maps`. In float32 (float64 for such values)."""
    dtype = torch.promote_types(s.value.dtype, torch.float32)
    batch, queries, heads = s.weights.shape[:3]
    grids = list(zip(s.grids[::2], s.grids[1::2], strict=True))
    parts = s.value.to(dtype).split([height * width for height, width in grids], 1)
    places = 2 * s.locations.to(dtype) - 1  # as grid_sample counts: -1 … 1 from edge to edge
    read = []
    for number, (part, grid) in enumerate(zip(parts, grids, strict=True)):
        maps = part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, grid)
        where = places[:, :, :, number].transpose(1, 2).flatten(0, 1)  # (b*heads q points 2)
        read.append(F.grid_sample(maps, where, padding_mode="zeros", align_corners=False))  # (b*heads c q points)
    share = s.weights.to(dtype).transpose(1, 2).flatten(3).flatten(0, 1)[:, None]
    total = (torch.cat(read, -1) * share).sum(-1)  # (b*heads c q)
    return total.view(batch, heads * s.value.shape[3], queries).transpose(1, 2).to(s.value.dtype)


def add_rms_norm(s: NormInputs) -> tuple[Tensor, Tensor]:
    """See :func:`skimba.ops.add_rms_norm`."""
    total = s.x.to(torch.promote_types(s.x.dtype, torch.float32))
    if s.residual is not None:
        total = total + s.residual
    return _rms_norm(total, s.weight, s.eps).to(s.x.dtype), total


def _rms_norm(total: Tensor, weight: Tensor, eps: float) -> Tensor:
    return total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight


def int8_linear(s: Int8Inputs) -> Tensor:
    """See :func:`skimba.ops.int8_linear`. The product is that of whole numbers below 2^53, so it is exact."""
    x = s.x.to(torch.promote_types(s.x.dtype, torch.float32))
    largest = x.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > LEAST_ROW, 127 / largest, 0.0)
    values = (x * inverse).round().nan_to_num(0.0, 0.0, 0.0)
    largest = largest.where(largest.isfinite(), torch.nan)
    products = values.double() @ s.weight.double().t()
    y = products.to(x.dtype) * (s.scale * (largest / 127))
    return (y if s.bias is None else y + s.bias).to(s.x.dtype)


def run(operator: Operator, inputs: Any) -> Any:
    """The reference of an operator, past the dispatcher: every operation in it is torch's own."""
    return FUNCTIONS[operator.name](inputs)


@contextmanager
def _recording() -> Iterator[None]:
    """Lets torch record operations inside an operator's kernel, where the dispatcher has left autograd behind."""
    autograd = torch._C.DispatchKey.AutogradFunctionality
    with torch._C._SetExcludeDispatchKeyGuard(autograd, False), torch.enable_grad():
        yield


def _gradients(
    function: Callable[..., Tensor], inputs: Sequence[Any], wanted: Sequence[int], grad: Tensor
) -> dict[int, Tensor]:
    """Gradients of ``function(*inputs)`` to those of its inputs that are wanted, by running it again."""
    with _recording():
        leaves = {i: inputs[i].detach().requires_grad_() for i in wanted}
        y = function(*[leaves.get(i, x) for i, x in enumerate(inputs)])
        found = torch.autograd.grad(y, list(leaves.values()), grad.to(y.dtype), materialize_grads=True)
    return {i: g.contiguous() for i, g in zip(leaves, found, strict=True)}


def _kernels(operator: Operator) -> Kernels:
    function, signature = FUNCTIONS[operator.name], operator.signature

    def forward(*arguments: Any) -> Tensor:
        return function(signature.inputs(*arguments)).contiguous()

    def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        *inputs, mask = arguments
        wanted = [i for i, want in zip(signature.differentiable, mask, strict=True) if want]
        found = _gradients(forward, inputs, wanted, grad) if wanted else {}
        return tuple([found[i] if i in found else grad.new_empty(0) for i in signature.differentiable])

    return forward, backward


def _norm_kernels() -> Kernels:
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        y, total = add_rms_norm(NormInputs(*arguments))
        return y.contiguous(), total.clone(memory_format=torch.contiguous_format)

    def backward(
        grad: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        found = _gradients(_rms_norm, (total, weight, eps), (0, 1), grad)
        return found[0] if grad_total is None else found[0] + grad_total, found[1]

    return forward, backward


def _int8_kernel(*arguments: Any) -> Tensor:
    return int8_linear(Int8Inputs(*arguments))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    SELECTIVE_SCAN.name: selective_scan,
    CAUSAL_CONV1D.name: causal_conv1d,
    DEPTHWISE_CONV2D.name: depthwise_conv2d,
    SAMPLE_MAPS.name: sample_maps,
    ADD_RMS_NORM.name: add_rms_norm,
    INT8_LINEAR.name: int8_linear,
}
KERNELS: dict[str, Kernels] = {
    **{o.name: _kernels(o) for o in (SELECTIVE_SCAN, CAUSAL_CONV1D, DEPTHWISE_CONV2D, SAMPLE_MAPS)},
    ADD_RMS_NORM.name: _norm_kernels(),
    INT8_LINEAR.name: (_int8_kernel,),
}


def where(takes: Callable[[Tensor], bool], name: str, kernels: Kernels) -> Kernels:
    """A backend's kernels for first arguments that they take, the reference for all others."""

    def either(kernel: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, *rest: kernel(x, *rest) if takes(x) else other(x, *rest)

    return tuple(map(either, kernels, KERNELS[name]))


for _name, _kernels_of in KERNELS.items():
    implement(_name, "CompositeExplicitAutograd", *_kernels_of)
