"""The ``torch.library`` operators over the ``cpu`` backend: implementation, fake kernel and autograd.

With these compile, export and FLOP counting work by themselves. Every backward is an operator of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skimba.ops import _cpu
from skimba.ops.scan_inputs import NO_GRADIENT, ScanInputs

# The low-level interface: the wrapper of `torch.library.custom_op` costs tens of microseconds a call.
LIBRARY: Any = torch.library.Library("skimba", "FRAGMENT")
_SCAN = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? gap, Tensor? step, Tensor? missing, Tensor? order, bool reverse, bool log_A"
)
_CONV = "Tensor x, Tensor weight, Tensor bias, Tensor? source, bool reverse"
_WITH_GRADIENT = len(ScanInputs._fields) - len(NO_GRADIENT)
_TEN = ", ".join(["Tensor"] * 10)


def _fake_scan(u: Tensor, *rest: Any) -> Tensor:
    return u.new_empty(u.shape)


def _fake_scan_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(
        grad.new_empty(0, dtype=torch.float32) if x is None else x.new_empty(x.shape) for x in inputs[:_WITH_GRADIENT]
    )


def _fake_conv(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _fake_conv_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _keep_scan(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reverse, ctx.log_A = inputs
    ctx.save_for_backward(*tensors)


def _scan_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    grads = torch.ops.skimba.selective_scan_backward(grad, *inputs, ctx.reverse, ctx.log_A)
    given = zip(inputs[:_WITH_GRADIENT], grads, strict=True)
    return (*(None if x is None else g for x, g in given), *[None] * (len(NO_GRADIENT) + 2))


def _keep_conv(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _conv_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.skimba.depthwise_conv_backward(grad, *ctx.saved_tensors, ctx.reverse)
    return (*grads, None, None)


def _fake_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(x.shape, dtype=torch.float32)


def _fake_norm_backward(
    grad_y: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return total.new_empty(total.shape), weight.new_empty(weight.shape)


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, residual, weight, ctx.eps = inputs
    ctx.save_for_backward(output[1], weight)
    ctx.dtype, ctx.begins = x.dtype, residual is None


def _norm_gradients(ctx: Any, grad_y: Tensor, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
    total, weight = ctx.saved_tensors
    grad, grad_weight = torch.ops.skimba.add_rms_norm_backward(grad_y, grad_total, total, weight, ctx.eps)
    return grad.to(ctx.dtype), None if ctx.begins else grad, grad_weight, None


def _register(name: str, schema: str, implementation: Any, fake: Any) -> None:
    LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.needs_fixed_stride_order,))
    LIBRARY.impl(name, implementation, "CPU")
    torch.library.register_fake(f"skimba::{name}", fake, lib=LIBRARY)


_register("selective_scan", f"({_SCAN}) -> Tensor", _cpu.selective_scan, _fake_scan)
_register(
    "selective_scan_backward", f"(Tensor grad, {_SCAN}) -> ({_TEN})", _cpu.selective_scan_backward, _fake_scan_backward
)
_register("depthwise_conv", f"({_CONV}) -> Tensor", _cpu.depthwise_conv, _fake_conv)
_register(
    "depthwise_conv_backward",
    f"(Tensor grad, {_CONV}) -> (Tensor, Tensor, Tensor)",
    _cpu.depthwise_conv_backward,
    _fake_conv_backward,
)
_register(
    "add_rms_norm",
    "(Tensor x, Tensor? residual, Tensor weight, float eps) -> (Tensor, Tensor)",
    _cpu.add_rms_norm,
    _fake_norm,
)
_register(
    "add_rms_norm_backward",
    "(Tensor grad_y, Tensor? grad_total, Tensor total, Tensor weight, float eps) -> (Tensor, Tensor)",
    _cpu.add_rms_norm_backward,
    _fake_norm_backward,
)
torch.library.register_autograd("skimba::add_rms_norm", _norm_gradients, setup_context=_keep_norm, lib=LIBRARY)
torch.library.register_autograd("skimba::selective_scan", _scan_gradients, setup_context=_keep_scan, lib=LIBRARY)
torch.library.register_autograd("skimba::depthwise_conv", _conv_gradients, setup_context=_keep_conv, lib=LIBRARY)


def call(operator: Any, *arguments: Any) -> Any:
    """``operator(*arguments)``, past the autograd layer where nothing needs it: that layer is Python and not free."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)
