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
    if x is None:
        return _ABSENT
    strides = x.stride()  # one call for both: it is the calls that cost
    return x.data_ptr(), strides[0], strides[1]


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _unit(x: Tensor | None) -> Tensor | None:
    """``x`` with unit stride on the last axis, which is all that the kernels need."""
    return x if x is None or x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _parameter(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


ScanCall = tuple[list[Tensor | None], tuple[object, ...]]


def _scan_call(s: ScanInputs, reverse: bool, log_A: bool) -> ScanCall:
    """The kernel's arguments, and the tensors that must outlive the call."""
    batch, length, channels = s.u.shape
    per_channel = s.gap is not None and s.gap.dim() == 3
    rows = [*map(_unit, (s.u, s.delta, s.B, s.C, s.z)), _unit(s.gap) if per_channel else s.gap, s.step, s.missing]
    parameters = [_parameter(x) for x in (s.A, s.D, s.delta_bias)]
    order = _parameter(s.order)
    sizes = (batch, length, channels, s.A.shape[1])
    flags = (s.u.dtype == torch.bfloat16, reverse, per_channel, log_A, torch.get_num_threads())
    visited = (0, 0) if order is None else (order.data_ptr(), length if order.dim() == 2 else 0)
    return [*rows, *parameters, order], (sizes, flags, *map(_operand, rows), *map(_pointer, parameters), visited)


def selective_scan(*arguments: Any) -> Tensor:
    """Arguments: those of :class:`ScanInputs`, then ``reverse`` and ``log_A``."""
    *tensors, reverse, log_A = arguments
    s = ScanInputs(*tensors)
    _alive, call = _scan_call(s, reverse, log_A)
    y = _empty(s.u)
    _native.scan(*call, y.data_ptr())
    return y


def selective_scan_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of all tensor arguments that have one, in their order; an empty tensor for each that is not given."""
    *tensors, reverse, log_A = arguments
    s = ScanInputs(*tensors)
    _alive, call = _scan_call(s, reverse, log_A)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    wanted = [x for name, x in s._asdict().items() if name not in NO_GRADIENT]
    grads = tuple(torch.empty(0) if x is None else _empty(x) for x in wanted)
    _native.scan_backward(*call, _operand(grad), tuple(g.data_ptr() if g.numel() else 0 for g in grads))
    return grads


ConvCall = tuple[list[Tensor | None], tuple[object, ...]]


def _image(x: Tensor) -> tuple[Tensor, Image]:
    """``x (b h w e)``, or ``(b l e)`` as a grid of one row, with unit stride on the last axis: address and strides."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    batch, *row, column, _ = x.stride()
    return x, (x.data_ptr(), batch, row[0] if row else 0, column)


def _conv_call(x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, reverse: bool) -> ConvCall:
    x, image = _image(x)
    weight, bias, source = weight.contiguous(), bias.contiguous(), _parameter(source)
    shown = (0, 0) if source is None else (x.shape[1], source.data_ptr())
    positions = x.shape[1:-1] if source is None else source.shape[1:]
    height, width = positions if len(positions) == 2 else (1, *positions)
    if weight.dim() == 2:
        taps = (1, weight.shape[1], 0, 0 if reverse else weight.shape[1] - 1)
    else:
        taps = (*weight.shape[1:], weight.shape[1] // 2, weight.shape[2] // 2)
    flags = (x.dtype == torch.bfloat16, reverse, torch.get_num_threads())
    sizes = (x.shape[0], height, width, x.shape[-1])
    return [x, weight, bias, source], (sizes, taps, *flags, image, shown, weight.data_ptr(), bias.data_ptr())


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, reverse: bool) -> Tensor:
    """Causal along a sequence ``x (b l e)`` with ``weight (e k)``, over a grid ``(b h w e)`` with ``(e kh kw)``."""
    _alive, call = _conv_call(x, weight, bias, source, reverse)
    y = _empty(x)
    _native.conv(*call, y.data_ptr())
    return y


def depthwise_conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, source: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _alive, call = _conv_call(x, weight, bias, source, reverse)
    grad, image = _image(grad)
    gx, gweight, gbias = map(_empty, (x, weight, bias))
    grads = (gx, gweight, gbias)
    _native.conv_backward(*call, image, *(g.data_ptr() for g in grads))
    return grads


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x, weight = x.contiguous(), weight.contiguous()
    residual = _parameter(residual)
    y, total = torch.empty_like(x), torch.empty_like(x, dtype=torch.float32)
    pointers = (x.data_ptr(), _pointer(residual), weight.data_ptr(), y.data_ptr(), total.data_ptr())
    _native.norm(_norm_sizes(x, eps), *pointers)
    return y, total


def add_rms_norm_backward(
    grad_y: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` (and of the residual: the same, float32) and of ``weight``."""
    grad_y, total, weight = grad_y.contiguous(), total.contiguous(), weight.contiguous()
    grad_total = _parameter(grad_total)
    grad_x, grad_weight = torch.empty_like(total), torch.empty_like(weight)
    pointers = (total.data_ptr(), weight.data_ptr(), grad_y.data_ptr(), _pointer(grad_total))
    _native.norm_backward(_norm_sizes(grad_y, eps), *pointers, grad_x.data_ptr(), grad_weight.data_ptr())
    return grad_x, grad_weight


def _norm_sizes(x: Tensor, eps: float) -> tuple[object, ...]:
    width = x.shape[-1]
    return x.numel() // max(width, 1), width, x.dtype == torch.bfloat16, torch.get_num_threads(), eps
