"""skimba's operators as ONNX functions, which a runtime without our kernels runs in their place.

An ONNX function cannot ask whether an optional input is there. So each set of inputs that a model uses is an operator of its
own, named after the inputs that it has beyond the required ones: ``SelectiveScan_z_missing_reverse``. Where a runtime has an
operator of that name (:func:`skimba.export.ort_library`), it takes that and leaves the function alone.

Axis letters are those of the whole library: b batch, l tokens, L positions, e channels, n states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from onnx import AttributeProto, FunctionProto, TensorProto, helper

from skimba.export.nodes import Given, Nodes
from skimba.export.pieces import flat_rows, silu, take
from skimba.export.scan_nodes import write_scan

DOMAIN, VERSION = "skimba", 1
SCAN_OPTIONS = ("z", "gap", "step", "hold", "missing", "order")
LEAST_ROW = 1e-30  # rows of 8-bit integers that hold nothing larger count as zeros
CHANNELS, PADS, EPS = (
    Given("channels", AttributeProto.INT),
    Given("pads", AttributeProto.INTS),
    Given("eps", AttributeProto.FLOAT),
)


@dataclass(frozen=True)
class OnnxFunction:
    """An operator with one set of inputs.

    Attributes:
        operator: its name without options.
        inputs: their names.
        options: the inputs and flags that its own name adds.
        outputs: their names.
        attributes: that a call gives.
        write: writes the nodes that compute the outputs.
    """

    operator: str
    inputs: tuple[str, ...]
    options: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[Given, ...]
    write: Callable[[Nodes], None]

    @property
    def name(self) -> str:
        return "_".join((self.operator, *self.options))

    def proto(self, opset: int) -> FunctionProto:
        nodes = Nodes()
        self.write(nodes)
        imports = [helper.make_opsetid("", opset)]
        names = [given.name for given in self.attributes]
        return helper.make_function(DOMAIN, self.name, self.inputs, self.outputs, nodes.made, imports, names)


def selective_scan(options: Iterable[str], reverse: bool) -> OnnxFunction:
    """:func:`skimba.selective_scan` with those of :data:`SCAN_OPTIONS`. Shapes as there, but ``gap (b l 1)`` or ``(b l e)`` and
    ``order (1 l)`` or ``(b l)``; ``A`` itself, and ``D`` and ``delta_bias`` always."""
    asked = set(options)
    given = tuple(option for option in SCAN_OPTIONS if option in asked)
    inputs = ("u", "delta", "A", "B", "C", "D", "delta_bias", *given)
    flags = ("reverse",) if reverse else ()
    write = partial(write_scan, given=given, reverse=reverse)
    return OnnxFunction("SelectiveScan", inputs, (*given, *flags), ("y",), (), write)


def causal_conv1d(source: bool, reverse: bool) -> OnnxFunction:
    """:func:`skimba.ops.causal_conv1d`. Attributes: ``channels``, and ``pads``, the zeros before and after."""
    return _convolution("CausalConv1d", source, reverse, _write_conv1d)


def depthwise_conv2d(source: bool) -> OnnxFunction:
    """:func:`skimba.ops.depthwise_conv2d`. Attributes: ``channels``, and ``pads``, the zeros on the four sides."""
    return _convolution("DepthwiseConv2d", source, False, _write_conv2d)


def _convolution(operator: str, source: bool, reverse: bool, write: Callable[..., None]) -> OnnxFunction:
    inputs = ("x", "weight", "bias", "source") if source else ("x", "weight", "bias")
    options = (*inputs[3:], *(("reverse",) if reverse else ()))
    write = partial(write, source=source, reverse=reverse)
    return OnnxFunction(operator, inputs, options, ("y",), (CHANNELS, PADS), write)


def _write_conv1d(nodes: Nodes, source: bool, reverse: bool) -> None:
    taps = nodes("Slice", "weight", [-1], [-(2**63)], [1], [-1]) if reverse else "weight"
    full, shown = _show(nodes) if source else ("x", "")
    y = _convolve(nodes, full, nodes("Unsqueeze", taps, [1]), [0, 2, 1], [0, 2, 1])
    nodes.rename(_mean_shown(nodes, y, shown) if source else y, "y")


def _write_conv2d(nodes: Nodes, source: bool, reverse: bool) -> None:
    grid, shown = "x", ""
    if source:
        full, shown = _show(nodes)
        grid = nodes("Reshape", full, nodes("Concat", nodes("Shape", "source"), nodes("Shape", "x", start=2), axis=0))
    y = _convolve(nodes, grid, nodes("Unsqueeze", "weight", [1]), [0, 3, 1, 2], [0, 2, 3, 1])
    nodes.rename(_mean_shown(nodes, y, shown) if source else y, "y")


def _convolve(nodes: Nodes, x: str, kernel: str, there: list[int], back: list[int]) -> str:
    """``silu`` of a depthwise convolution, of channels in the last place."""
    y = nodes("Conv", nodes("Transpose", x, perm=there), kernel, "bias", group=CHANNELS, pads=PADS)
    return nodes("Transpose", silu(nodes, y), perm=back)


def _show(nodes: Nodes) -> tuple[str, str]:
    """The tokens of ``x`` at all positions ``(b L e)``, zeros where none is shown; and ``source (b L)``, int64."""
    shown = nodes("Reshape", nodes("Cast", "source", to=TensorProto.INT64), [0, -1])
    copies = take(nodes, "x", flat_rows(nodes, nodes("Max", shown, 0), "x"))
    return nodes("Mul", copies, _shows(nodes, shown)), shown


def _shows(nodes: Nodes, shown: str) -> str:
    """``(b L 1)``: 1 where a position shows a token, else 0."""
    return nodes("Unsqueeze", nodes("Cast", nodes("GreaterOrEqual", shown, 0), to=TensorProto.FLOAT), [-1])


def _mean_shown(nodes: Nodes, full: str, shown: str) -> str:
    """For each token of ``x (b l e)`` the mean of ``full (b … e)`` over the positions that show it.

    A product of matrices: onnxruntime adds what ScatterND brings to one place without a lock, from several threads.
    """
    tokens = nodes("Range", 0, nodes("Squeeze", nodes("Shape", "x", start=1, end=2), [0]), 1)
    here = nodes("Equal", nodes("Unsqueeze", tokens, [1]), nodes("Unsqueeze", shown, [1]))  # (b l L)
    weight = nodes("Cast", here, to=TensorProto.FLOAT)
    count = nodes("Max", nodes("ReduceSum", weight, [-1]), 1.0)
    positions = nodes("Reshape", full, nodes("Concat", nodes("Shape", shown), [-1], axis=0))  # (b L e)
    total = nodes("MatMul", weight, positions)
    return nodes("Div", total, count)


def add_rms_norm(residual: bool) -> OnnxFunction:
    """:func:`skimba.ops.add_rms_norm`. Attribute: ``eps``."""
    inputs = ("x", "weight", "residual") if residual else ("x", "weight")
    write = partial(_write_norm, residual=residual)
    return OnnxFunction("AddRmsNorm", inputs, inputs[2:], ("y", "total"), (EPS,), write)


def _write_norm(nodes: Nodes, residual: bool) -> None:
    total = nodes("Add", "x", "residual") if residual else "x"
    mean = nodes("ReduceMean", nodes("Mul", total, total), [-1])
    root = nodes("Sqrt", nodes("Add", mean, nodes("Constant", value_float=EPS)))
    nodes.rename(nodes("Mul", nodes("Div", total, root), "weight"), "y")
    nodes.rename(total, "total")


def int8_linear(bias: bool) -> OnnxFunction:
    """:func:`skimba.ops.int8_linear`."""
    inputs = ("x", "weight", "scale", "bias") if bias else ("x", "weight", "scale")
    return OnnxFunction("Int8Linear", inputs, inputs[3:], ("y",), (), partial(_write_int8, bias=bias))


def _write_int8(nodes: Nodes, bias: bool) -> None:
    largest = nodes("ReduceMax", nodes("Abs", "x"), [-1], keepdims=1)
    inverse = nodes("Where", nodes("Greater", largest, LEAST_ROW), nodes("Div", 127.0, largest), 0.0)
    values = nodes("Cast", nodes("Round", nodes("Mul", "x", inverse)), to=TensorProto.INT8)
    products = nodes("MatMulInteger", values, nodes("Transpose", "weight", perm=[1, 0]))
    scales = nodes("Mul", nodes("Div", largest, 127.0), "scale")
    y = nodes("Mul", nodes("Cast", products, to=TensorProto.FLOAT), scales)
    nodes.rename(nodes("Add", y, "bias") if bias else y, "y")
