"""What torch's exporter to ONNX writes for skimba's operators, for a stable sort and for sums of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnx import AttributeProto
from onnx.defs import OpSchema
from onnxscript import opset18, values

from skimba.export import functions
from skimba.export.functions import DOMAIN, SCAN_OPTIONS, VERSION, OnnxFunction
from skimba.ops.inputs import CausalInputs, GridInputs, Int8Inputs, NormInputs, ScanInputs

op: Any = opset18  # its types know no tensors of a trace
OPSET = values.Opset(DOMAIN, VERSION)
KINDS: dict[int, Any] = {
    AttributeProto.INT: OpSchema.AttrType.INT,
    AttributeProto.INTS: OpSchema.AttrType.INTS,
    AttributeProto.FLOAT: OpSchema.AttrType.FLOAT,
}
# Of inputs by name; all others are float.
TYPES = {
    ("SelectiveScan", "order"): "int32",
    ("CausalConv1d", "source"): "int32",
    ("DepthwiseConv2d", "source"): "int32",
    ("Int8Linear", "weight"): "int8",
}
Translate = Callable[..., Any]


class Operators:
    """skimba's operators in one file.

    Attributes:
        used: the functions that the file needs, by name.
    """

    def __init__(self) -> None:
        self.used: dict[str, OnnxFunction] = {}

    def translations(self) -> dict[Callable[..., Any], Translate]:
        """As ``torch.onnx.export`` takes them."""
        ops = torch.ops.skimba
        return {
            ops.selective_scan.default: _of(ScanInputs, self._scan),
            ops.causal_conv1d.default: _of(CausalInputs, self._conv1d),
            ops.depthwise_conv2d.default: _of(GridInputs, self._conv2d),
            ops.add_rms_norm.default: _of(NormInputs, self._norm),
            ops.int8_linear.default: _of(Int8Inputs, self._int8),
            torch.ops.aten.sort.stable: stable_sort,
            torch.ops.aten.index_add.default: add_rows,
        }

    def _call(self, function: OnnxFunction, operands: dict[str, Any], **attributes: Any) -> Any:
        self.used[function.name] = function
        operator = values.Op(OPSET, function.name, _schema(function))
        return operator(*[operands[name] for name in function.inputs], **attributes)

    def _scan(self, s: ScanInputs) -> Any:
        operands = s._asdict()
        none = op.ConstantOfShape(op.Shape(s.A, start=0, end=1))  # (e)
        operands["A"] = op.Neg(op.Exp(s.A)) if s.log_A else s.A
        operands["D"] = none if s.D is None else s.D
        operands["delta_bias"] = none if s.delta_bias is None else s.delta_bias
        if s.gap is not None and len(s.gap.shape) == 2:
            operands["gap"] = op.Unsqueeze(s.gap, op.Constant(value_ints=[2]))
        if s.order is not None and len(s.order.shape) == 1:
            operands["order"] = op.Unsqueeze(s.order, op.Constant(value_ints=[0]))
        given = [name for name in SCAN_OPTIONS if operands[name] is not None]
        return self._call(functions.selective_scan(given, s.reverse), operands)

    def _conv1d(self, s: CausalInputs) -> Any:
        channels, width = s.weight.shape
        pads = [0, width - 1] if s.reverse else [width - 1, 0]
        function = functions.causal_conv1d(s.source is not None, s.reverse)
        return self._call(function, s._asdict(), channels=channels, pads=pads)

    def _conv2d(self, s: GridInputs) -> Any:
        channels, height, width = s.weight.shape
        pads = [height // 2, width // 2] * 2
        return self._call(functions.depthwise_conv2d(s.source is not None), s._asdict(), channels=channels, pads=pads)

    def _norm(self, s: NormInputs) -> Any:
        return self._call(functions.add_rms_norm(s.residual is not None), s._asdict(), eps=s.eps)

    def _int8(self, s: Int8Inputs) -> Any:
        return self._call(functions.int8_linear(s.bias is not None), s._asdict())


def _of(inputs: type[Any], translate: Callable[[Any], Any]) -> Translate:
    """The exporter reads a function's annotations, and takes no method."""

    def of_arguments(*arguments, **options):  # type: ignore[no-untyped-def]
        return translate(inputs(*arguments, **options))

    return of_arguments


def stable_sort(x, *, stable=True, dim=-1, descending=False):  # type: ignore[no-untyped-def]
    """``aten::sort.stable`` of the last axis, by counting what comes before each element: no sort of ONNX says what it does with
    equal elements on every runtime."""
    if dim not in (-1, len(x.shape) - 1):
        raise ValueError(f"a stable sort is translated along the last axis only, got axis {dim} of {len(x.shape)}")
    last, before_last = op.Constant(value_ints=[-1]), op.Constant(value_ints=[-2])
    row, column = op.Unsqueeze(x, before_last), op.Unsqueeze(x, last)
    better = op.Greater(row, column) if descending else op.Less(row, column)
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    count = op.Squeeze(op.Shape(x, start=-1), op.Constant(value_ints=[0]))
    places = op.Range(zero, count, one)
    earlier = op.Less(op.Unsqueeze(places, before_last), op.Unsqueeze(places, last))
    goes_before = op.Or(better, op.And(op.Equal(row, column), earlier))
    rank = op.ReduceSum(op.Cast(goes_before, to=7), last, keepdims=0)
    index = op.ScatterElements(op.Mul(rank, zero), rank, op.Expand(places, op.Shape(x)), axis=-1)
    return op.GatherElements(x, index, axis=-1), index


def add_rows(x, dim, index, source, *, alpha=1):  # type: ignore[no-untyped-def]
    """``aten::index_add`` of rows. By ScatterElements: what ScatterND brings to one place, onnxruntime adds from several threads
    without a lock. Its result has as many rows as come, or more: those are cut off again."""
    if dim != 0 or alpha != 1:
        raise ValueError(f"rows are added along axis 0, as they are; got axis {dim}, times {alpha}")
    more = op.CastLike(op.ConstantOfShape(op.Shape(source)), source)
    column = op.Reshape(index, op.Constant(value_ints=[-1] + [1] * (len(source.shape) - 1)))
    rows = op.Expand(column, op.Shape(source))
    total = op.ScatterElements(op.Concat(x, more, axis=0), rows, source, axis=0, reduction="add")
    return op.Slice(total, op.Constant(value_ints=[0]), op.Shape(x, start=0, end=1), op.Constant(value_ints=[0]))


def _schema(function: OnnxFunction) -> OpSchema:
    """Its formal parameters."""
    kinds = {name: TYPES.get((function.operator, name), "float") for name in function.inputs}
    inputs = [OpSchema.FormalParameter(name, f"tensor({kind})") for name, kind in kinds.items()]
    outputs = [OpSchema.FormalParameter(name, "tensor(float)") for name in function.outputs]
    attributes = [OpSchema.Attribute(given.name, KINDS[given.kind]) for given in function.attributes]
    return OpSchema(function.name, DOMAIN, VERSION, inputs=inputs, outputs=outputs, attributes=attributes)
