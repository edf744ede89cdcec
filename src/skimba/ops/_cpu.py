"""The ``cpu`` backend: hands addresses, sizes and strides of checked tensors to the C++ kernels (``csrc/``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skimba.ops.native import _native
from skimba.ops.scan_inputs import NO_GRADIENT, ScanInputs

Operand = tuple[int, int, int]
Image = tuple[int, int, int, int]
_ABSENT: Operand = (0, 0, 0)


def _operand(x: Tensor | None) -> Operand:
    """Address, batch stride and token stride."""
    return _ABSENT if x is None else (x.data_ptr(), x.stride(0), x.stride(1))


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _unit(x: Tensor | None) -> Tensor | None:
    """``x`` with unit stride on the last axis, which is all that the kernels need."""
    return x if x is None or x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _parameter(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


ScanCall = tuple[list[Tensor | None], tuple[object, ...]]


def _scan_call(s: ScanInputs, reverse: bool) -> ScanCall:
    """The kernel's arguments, and the tensors that must outlive the call."""
    batch, length, channels = s.u.shape
    per_channel = s.gap is not None and s.gap.dim() == 3
    rows = [*map(_unit, (s.u, s.delta, s.B, s.C, s.z)), _unit(s.gap) if per_channel else s.gap, s.step, s.missing]
    parameters = [_parameter(x) for x in (s.A, s.D, s.delta_bias)]
    order = _parameter(s.order)
    sizes = (batch, length, channels, s.A.shape[1])
    flags = (s.u.dtype == torch.bfloat16, reverse, per_channel, torch.get_num_threads())
    visited = (0, 0) if order is None else (order.data_ptr(), length if order.dim() == 2 else 0)
    return [*rows, *parameters, order], (sizes, flags, *map(_operand, rows), *map(_pointer, parameters), visited)


def selective_scan(*arguments: Any) -> Tensor:
    """Arguments: those of :class:`ScanInputs`, then ``reverse``."""
    s = ScanInputs(*arguments[:-1])
    _alive, call = _scan_call(s, arguments[-1])
    y = torch.empty(s.u.shape, dtype=s.u.dtype)
    _native.scan(*call, y.data_ptr())
    return y


def selective_scan_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of all tensor arguments that have one, in their order; an empty tensor for each that is not given."""
    s = ScanInputs(*arguments[:-1])
    _alive, call = _scan_call(s, arguments[-1])
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    wanted = [x for name, x in s._asdict().items() if name not in NO_GRADIENT]
    grads = tuple(torch.empty(0) if x is None else torch.empty(x.shape, dtype=x.dtype) for x in wanted)
    _native.scan_backward(*call, _operand(grad), tuple(g.data_ptr() if g.numel() else 0 for g in grads))
    return grads


ConvCall = tuple[list[Tensor | None], tuple[object, ...]]


def _image(x: Tensor) -> tuple[Tensor, Image]:
    x = x if x.stride(-1) == 1 else x.contiguous()
    return x, (x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))


def _conv_call(x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, pad_top: int, pad_left: int) -> ConvCall:
    x, image = _image(x)
    batch, height, width, channels = x.shape
    shown = (0, 0)
    if source is not None:  # x is then (b 1 l e), and the grid is the source's
        source = source.contiguous()
        shown = (width, source.data_ptr())
        height, width = source.shape[1:]
    weight, bias = weight.contiguous(), bias.contiguous()
    taps = (weight.shape[1], weight.shape[2], pad_top, pad_left)
    flags = (x.dtype == torch.bfloat16, torch.get_num_threads())
    call = ((batch, height, width, channels), taps, *flags, image, shown, weight.data_ptr(), bias.data_ptr())
    return [x, weight, bias, source], call


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, pad_top: int, pad_left: int
) -> Tensor:
    _alive, call = _conv_call(x, weight, bias, source, pad_top, pad_left)
    y = torch.empty(x.shape, dtype=x.dtype)
    _native.conv(*call, y.data_ptr())
    return y


def depthwise_conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, pad_top: int, pad_left: int
) -> tuple[Tensor, Tensor, Tensor]:
    _alive, call = _conv_call(x, weight, bias, source, pad_top, pad_left)
    grad, image = _image(grad)
    gx, gweight, gbias = (torch.empty(t.shape, dtype=t.dtype) for t in (x, weight, bias))
    grads = (gx, gweight, gbias)
    _native.conv_backward(*call, image, *(g.data_ptr() for g in grads))
    return grads


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x, weight = x.contiguous(), weight.contiguous()
    residual = _parameter(residual)
    y, total = torch.empty(x.shape, dtype=x.dtype), torch.empty(x.shape, dtype=torch.float32)
    pointers = (x.data_ptr(), _pointer(residual), weight.data_ptr(), y.data_ptr(), total.data_ptr())
    _native.norm(_norm_sizes(x, eps), *pointers)
    return y, total


def add_rms_norm_backward(
    grad_y: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` (and of the residual: the same, float32) and of ``weight``."""
    grad_y, total, weight = grad_y.contiguous(), total.contiguous(), weight.contiguous()
    grad_total = _parameter(grad_total)
    grad_x, grad_weight = torch.empty(total.shape, dtype=torch.float32), torch.empty(weight.shape, dtype=torch.float32)
    pointers = (total.data_ptr(), weight.data_ptr(), grad_y.data_ptr(), _pointer(grad_total))
    _native.norm_backward(_norm_sizes(grad_y, eps), *pointers, grad_x.data_ptr(), grad_weight.data_ptr())
    return grad_x, grad_weight


def _norm_sizes(x: Tensor, eps: float) -> tuple[object, ...]:
    width = x.shape[-1]
    return x.numel() // max(width, 1), width, x.dtype == torch.bfloat16, torch.get_num_threads(), eps
