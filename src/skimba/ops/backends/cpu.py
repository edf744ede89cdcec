"""The ``cpu`` backend: hands addresses, sizes and strides of checked tensors to the C++ kernels (``csrc/``).

The kernels take float32 and bfloat16; tensors on the CPU of any other dtype go to the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from skimba.ops import library
from skimba.ops.backends import native, reference
from skimba.ops.backends.native import _native
from skimba.ops.inputs import SCAN, CausalInputs, GridInputs, Int8Inputs, NormInputs, SampleInputs, ScanInputs
from skimba.ops.library import (
    ADD_RMS_NORM,
    CAUSAL_CONV1D,
    DEPTHWISE_CONV2D,
    INT8_LINEAR,
    SAMPLE_MAPS,
    SELECTIVE_SCAN,
    Kernels,
    Operator,
    hand_back,
    implement,
)

DTYPES = (torch.float32, torch.bfloat16)
Address = tuple[int, int, int]
_ABSENT: Address = (0, 0, 0)
# Places in ScanInputs, in the order in which the kernels take them; whether a row is in the dtype of the data.
_OPERANDS = tuple(SCAN.operands.values())
_ROWS = tuple((i, operand.data) for i, operand in enumerate(_OPERANDS) if operand.axes[0].startswith("b l"))
_PARAMETERS = tuple(i for i, operand in enumerate(_OPERANDS) if operand.axes[0].startswith("e"))
_GRADIENTS = tuple((i, _OPERANDS[i].data) for i in SCAN.differentiable)
_HOLD = ScanInputs._fields.index("hold")


def run(operator: Operator, inputs: Any) -> Any:
    """The kernels, or the reason why they cannot run."""
    x = inputs[0]
    if native.UNAVAILABLE is not None:
        raise RuntimeError(f"backend 'cpu' cannot run: {native.UNAVAILABLE}")
    if x.dtype not in DTYPES or x.device.type not in ("cpu", "meta"):  # meta: only shapes are asked for
        raise TypeError(f"backend 'cpu' needs float32 or bfloat16 on cpu, got {x.dtype} on {x.device}")
    return library.call(operator.forward, *inputs)


# The tensors of a call stand in a list `alive`, until the kernel has run: some are copies, cast or contiguous.


def _row(x: Tensor | None, dtype: torch.dtype, alive: list[Tensor]) -> Address:
    """Address, batch stride and token stride; unit stride on the last of three axes, which is all that the kernels need."""
    if x is None:
        return _ABSENT
    if x.dtype != dtype:
        x = x.to(dtype)
    strides = x.stride()  # one call for all: it is the calls that cost
    if len(strides) == 3 and strides[2] != 1 and x.shape[2] != 1:
        x = x.contiguous()
        strides = x.stride()
    alive.append(x)
    return x.data_ptr(), strides[0], strides[1]


def _whole(x: Tensor | None, dtype: torch.dtype, alive: list[Tensor]) -> int:
    """Address of a contiguous tensor."""
    if x is None:
        return 0
    x = (x if x.dtype == dtype else x.to(dtype)).contiguous()
    alive.append(x)
    return x.data_ptr()


def _image(x: Tensor, alive: list[Tensor]) -> tuple[int, int, int, int]:
    """Address and strides of ``(b h w e)``, or of ``(b l e)`` as a grid of one row."""
    strides = x.stride()
    if strides[-1] != 1:
        x = x.contiguous()
        strides = x.stride()
    alive.append(x)
    return x.data_ptr(), strides[0], strides[1] if len(strides) == 4 else 0, strides[-2]


def _scan_call(s: ScanInputs, alive: list[Tensor]) -> tuple[torch.dtype, tuple[Any, ...]]:
    """The dtype of the data, float32 if they are mixed, and the kernel's arguments."""
    u, dtype = s.u, s.u.dtype
    if s.delta.dtype != dtype or s.B.dtype != dtype or s.C.dtype != dtype or (s.z is not None and s.z.dtype != dtype):
        dtype = torch.float32
    tensors: Any = s
    rows = tuple([_row(tensors[i], dtype if data else torch.float32, alive) for i, data in _ROWS])
    parameters = tuple([_whole(tensors[i], torch.float32, alive) for i in _PARAMETERS])
    order = (0, 0)
    if s.order is not None:
        order = (_whole(s.order, torch.int32, alive), u.shape[1] if s.order.dim() == 2 else 0)
    per_channel = s.gap is not None and s.gap.dim() == 3
    flags = (dtype == torch.bfloat16, s.reverse, per_channel, s.log_A, torch.get_num_threads())
    return dtype, ((*u.shape, s.A.shape[1]), flags, rows, parameters, order)


def selective_scan(*arguments: Any) -> Tensor:
    s, alive = ScanInputs(*arguments), list[Tensor]()
    dtype, call = _scan_call(s, alive)
    y = _empty(s.u, dtype)
    _native.scan(*call, y.data_ptr())
    return y if dtype == s.u.dtype else y.to(s.u.dtype)


def selective_scan_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, wanted = arguments
    s, alive = ScanInputs(*inputs), list[Tensor]()
    dtype, call = _scan_call(s, alive)
    grads: list[Tensor | None] = []
    for (i, data), want in zip(_GRADIENTS, wanted, strict=True):
        absent = inputs[i] is None or (i == _HOLD and not want)  # the only one that takes the kernels time of its own
        grads.append(None if absent else _empty(inputs[i], dtype if data else torch.float32))
    addresses = tuple([0 if g is None else g.data_ptr() for g in grads])
    _native.scan_backward(*call, _row(grad, dtype, alive), addresses)
    return hand_back(grad, grads, [inputs[i] for i, _ in _GRADIENTS], wanted)


def _conv_call(
    s: CausalInputs | GridInputs, taps: tuple[int, ...], reverse: bool, alive: list[Tensor]
) -> tuple[Any, ...]:
    """The kernel's arguments. ``taps``: the kernel's height and width, and the zeros above and left of the grid."""
    x, source = s.x, s.source
    grid = x.shape[1:-1] if source is None else source.shape[1:]
    height, width = grid if len(grid) == 2 else (1, *grid)
    flags = (x.dtype == torch.bfloat16, reverse, torch.get_num_threads())
    shown = (0, 0) if source is None else (x.shape[1], _whole(source, torch.int32, alive))
    parameters = (_whole(s.weight, torch.float32, alive), _whole(s.bias, torch.float32, alive))
    return (x.shape[0], height, width, x.shape[-1]), taps, flags, _image(x, alive), shown, parameters


def _causal_call(s: CausalInputs, alive: list[Tensor]) -> tuple[Any, ...]:
    width = s.weight.shape[1]
    return _conv_call(s, (1, width, 0, 0 if s.reverse else width - 1), s.reverse, alive)


def _grid_call(s: GridInputs, alive: list[Tensor]) -> tuple[Any, ...]:
    height, width = s.weight.shape[1:]
    return _conv_call(s, (height, width, height // 2, width // 2), False, alive)


def _convolution(inputs: type[Any], call: Callable[[Any, list[Tensor]], tuple[Any, ...]]) -> Kernels:
    def forward(*arguments: Any) -> Tensor:
        s, alive = inputs(*arguments), list[Tensor]()
        y = _empty(s.x, s.x.dtype)
        _native.conv(*call(s, alive), y.data_ptr())
        return y

    def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        *given, wanted = arguments
        s, alive = inputs(*given), list[Tensor]()
        grads = [_empty(s.x, s.x.dtype), _empty(s.weight, torch.float32), _empty(s.bias, torch.float32)]
        _native.conv_backward(*call(s, alive), _image(grad, alive), tuple([g.data_ptr() for g in grads]))
        return hand_back(grad, grads, given[:3], wanted)

    return forward, backward


def sample_maps(*arguments: Any) -> Tensor:
    s, alive = SampleInputs(*arguments), list[Tensor]()
    batch, queries, heads, maps, points = s.weights.shape
    y = s.value.new_empty(batch, queries, heads * s.value.shape[3])
    sizes = (batch, queries, s.value.shape[1], heads, s.value.shape[3], maps, points)
    flags = (s.value.dtype == torch.bfloat16, torch.get_num_threads())
    value = _whole(s.value, s.value.dtype, alive)
    locations, weights = (_whole(x, torch.float32, alive) for x in (s.locations, s.weights))
    _native.sample(sizes, flags, s.grids, value, locations, weights, y.data_ptr())
    return y


def add_rms_norm(*arguments: Any) -> tuple[Tensor, Tensor]:
    s, alive = NormInputs(*arguments), list[Tensor]()
    y, total = _empty(s.x, s.x.dtype), _empty(s.x, torch.float32)
    x, residual = _whole(s.x, s.x.dtype, alive), _whole(s.residual, torch.float32, alive)
    weight = _whole(s.weight, torch.float32, alive)
    _native.norm(_norm_sizes(s.x, s.eps), x, residual, weight, y.data_ptr(), total.data_ptr())
    return y, total


def add_rms_norm_backward(
    grad: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` (and of the residual: the same, float32) and of ``weight``."""
    alive = list[Tensor]()
    to_x, to_weight = _empty(total, torch.float32), _empty(weight, torch.float32)
    operands = [_whole(x, torch.float32, alive) for x in (total, weight)]
    grads = _whole(grad, grad.dtype, alive), _whole(grad_total, torch.float32, alive)
    _native.norm_backward(_norm_sizes(grad, eps), *operands, *grads, to_x.data_ptr(), to_weight.data_ptr())
    return to_x, to_weight.to(weight.dtype)


def _norm_sizes(x: Tensor, eps: float) -> tuple[Any, ...]:
    width = x.shape[-1]
    return x.numel() // width, width, x.dtype == torch.bfloat16, torch.get_num_threads(), eps


@cache
def int8_saturates() -> bool:
    """Whether oneDNN cuts sums of two products off at 16 bits, as it does on a CPU without VNNI."""
    largest = torch.full((64, 256), 127, dtype=torch.int8)
    return bool((torch._int_mm(largest, largest.t()) != 127 * 127 * 256).any())


def int8_product(values: Tensor, weight: Tensor) -> Tensor:
    """``values (m d)`` times ``weight (e d)``, both int8: ``(m e)`` int32, exact. Without VNNI it takes two products."""
    if not int8_saturates():
        return torch._int_mm(values, weight.t())
    half, rest = weight >> 1, weight & 1  # weight = 2 half + rest, and half is at most 64
    return torch._int_mm(values, half.t()) * 2 + torch._int_mm(values, rest.t())


def int8_linear(*arguments: Any) -> Tensor:
    """Kernels around torch's own product of 8-bit integers (oneDNN)."""
    s, alive = Int8Inputs(*arguments), list[Tensor]()
    x, outputs = s.x, s.weight.shape[0]
    batch, length, width = x.shape
    y = x.new_empty((batch, length, outputs))
    if batch == 0:
        return y
    flags = (x.dtype == torch.bfloat16, torch.get_num_threads())
    values = x.new_empty((batch * length, width), dtype=torch.int8)
    scales = x.new_empty(batch * length, dtype=torch.float32)
    _native.quantize_rows((*x.shape, *flags), _row(x, x.dtype, alive), values.data_ptr(), scales.data_ptr())
    products = int8_product(values, s.weight)
    columns, bias = (_whole(part, torch.float32, alive) for part in (s.scale, s.bias))
    sizes = (batch * length, outputs, *flags)
    _native.scale_products(sizes, products.data_ptr(), scales.data_ptr(), columns, bias, y.data_ptr())
    return y


def _empty(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def _takes(x: Tensor) -> bool:
    return x.dtype in DTYPES


KERNELS: dict[str, Kernels] = {
    SELECTIVE_SCAN.name: (selective_scan, selective_scan_backward),
    CAUSAL_CONV1D.name: _convolution(CausalInputs, _causal_call),
    DEPTHWISE_CONV2D.name: _convolution(GridInputs, _grid_call),
    SAMPLE_MAPS.name: (sample_maps, reference.KERNELS[SAMPLE_MAPS.name][1]),
    ADD_RMS_NORM.name: (add_rms_norm, add_rms_norm_backward),
    INT8_LINEAR.name: (int8_linear,),
}

if native.UNAVAILABLE is None:
    for _name, _kernels in KERNELS.items():
        implement(_name, "CPU", *reference.where(_takes, _name, _kernels))
