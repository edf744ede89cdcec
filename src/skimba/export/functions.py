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

from onnx import AttributeProto, FunctionProto, GraphProto, TensorProto, helper

from skimba.export.nodes import Given, Nodes

DOMAIN, VERSION = "skimba", 1
SCAN_OPTIONS = ("z", "gap", "step", "hold", "missing", "order")
Axes = tuple[str | int, ...]
LARGEST = 3.4028234e38  # of float32
LEAST_TIME = 1e-20  # shorter steps count as this: from there on, a held sum is the hold itself
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
    write = partial(_write_scan, given=given, reverse=reverse)
    return OnnxFunction("SelectiveScan", inputs, (*given, *flags), ("y",), (), write)


def _write_scan(nodes: Nodes, given: tuple[str, ...], reverse: bool) -> None:
    rows = _flat_rows(nodes, "order", "u") if "order" in given else None
    visited = "u" if rows is None else _take(nodes, "u", rows)
    dt, time = _times(nodes, given, reverse)
    held_sum = _held_sum(nodes, dt) if "hold" in given else None
    y = _recurrence(nodes, time, nodes("Mul", dt, visited), held_sum, reverse)
    if rows is not None:
        y = _put(nodes, y, rows)
    y = nodes("Add", y, nodes("Mul", "u", "D"))
    nodes.rename(nodes("Mul", y, _silu(nodes, "z")) if "z" in given else y, "y")


def _times(nodes: Nodes, given: tuple[str, ...], reverse: bool) -> tuple[str, str]:
    """How long each step lasts for its input and for the state, ``(b l e)``."""
    plain = nodes("Softplus", nodes("Add", "delta", "delta_bias"))
    dt = nodes("Mul", plain, nodes("Unsqueeze", "step", [-1])) if "step" in given else plain
    time = nodes("Mul", dt, nodes("Unsqueeze", "hold", [-1])) if "hold" in given else dt
    if "missing" in given:
        # the time of the step before; the first step's is arbitrary: its state is zero
        first = nodes("Slice", plain, [-1 if reverse else 0], [2**63 - 1 if reverse else 1], [1])
        others = nodes("Slice", plain, [1 if reverse else 0], [2**63 - 1 if reverse else -1], [1])
        before = nodes("Concat", *((others, first) if reverse else (first, others)), axis=1)
        time = nodes("Add", time, nodes("Mul", before, nodes("Unsqueeze", "missing", [-1])))
    if "gap" in given:
        time = nodes("Min", nodes("Add", time, "gap"), LARGEST)  # an infinite gap: 0 · infinity is NaN
    return dt, time


def _recurrence(nodes: Nodes, time: str, inputs: str, held_sum: str | None, reverse: bool) -> str:
    """``(b l e)``: one step after the other. States stand on the last axis but one, so that each operation runs along whole rows
    of channels; in onnxruntime it takes half the time of the other order."""
    decay, added = _by_step(nodes, time, -2), _by_step(nodes, inputs, -2)  # (l b 1 e)
    B, C = _by_step(nodes, "B", -1), _by_step(nodes, "C", -2)  # (l b n 1), (l b 1 n)
    A = nodes("Transpose", "A", perm=[1, 0])  # (n e)
    first = nodes("ConstantOfShape", nodes("Concat", nodes("Shape", "u", start=0, end=1), nodes("Shape", A), axis=0))
    scanned = [decay, added, C, B]
    if held_sum is not None:
        scanned.append(held_sum)
    _, _, y = nodes(
        "Scan",
        first,
        A,  # as a state that never changes: OpenVINO takes nothing from outside a step
        *scanned,
        outputs=3,
        body=_step(held_sum is not None),
        num_scan_inputs=len(scanned),
        scan_input_directions=[int(reverse)] * len(scanned),
        scan_output_directions=[int(reverse)],
    )
    return nodes("Transpose", nodes("Squeeze", y, [-2]), perm=[1, 0, 2])


def _step(held: bool) -> GraphProto:
    """``h <- exp(time A) h + added B held_sum``, ``y = C h``."""
    row: Axes = ("b", 1, "e")
    states: Axes = ("b", "n", "e")
    shapes: dict[str, Axes] = {
        "h": states,
        "A_t": ("n", "e"),
        "time": row,
        "added": row,
        "C_t": ("b", 1, "n"),
        "B_t": ("b", "n", 1),
    }
    if held:
        shapes["held_sum"] = states
    nodes = Nodes("s")
    added = nodes("Mul", "added", "B_t")
    if held:
        added = nodes("Mul", added, "held_sum")
    h = nodes("Add", nodes("Mul", nodes("Exp", nodes("Mul", "time", "A_t")), "h"), added)
    y = nodes("MatMul", "C_t", h)
    results: list[tuple[str, Axes]] = [(h, states), (nodes("Identity", "A_t"), ("n", "e")), (y, row)]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in results]
    return helper.make_graph(nodes.made, "step", inputs, outputs)


def _by_step(nodes: Nodes, x: str, axis: int) -> str:
    """``x (b l …)`` with the steps in front and a new axis."""
    return nodes("Unsqueeze", nodes("Transpose", x, perm=[1, 0, 2]), [axis])


def _held_sum(nodes: Nodes, dt: str) -> str:
    """``(l b n e)``: ``expm1(hold · q) / expm1(q)`` with ``q = dt A``, which is negative.

    As ``expm1(x) = 2 / (coth(x / 2) - 1)``, it is exact near zero, too. Found for tokens that are held; for all others, most of
    them, it is 1.
    """
    hold = nodes("Reshape", "hold", [-1])
    held = nodes("Cast", nodes("Not", nodes("Equal", hold, 1.0)), to=TensorProto.INT64)  # (b*l)
    rows = nodes("Squeeze", nodes("NonZero", held), [0])  # (k)
    A = nodes("Transpose", nodes("Mul", "A", 0.5), perm=[1, 0])  # (n e)
    times = nodes(
        "Max", nodes("Unsqueeze", nodes("Gather", _flat(nodes, dt), rows, axis=0), [1]), LEAST_TIME
    )  # (k 1 e)
    q = nodes("Mul", times, A)  # (k n e), halved
    held_q = nodes("Mul", q, nodes("Unsqueeze", nodes("Gather", hold, rows, axis=0), [1, 2]))
    once, often = (nodes("Sub", nodes("Reciprocal", nodes("Tanh", x)), 1.0) for x in (q, held_q))
    one = nodes("Unsqueeze", nodes("Add", nodes("Mul", A, 0.0), 1.0), [0])  # (1 n e)
    sums = nodes("Concat", one, nodes("Div", once, often), axis=0)
    place = nodes("Mul", held, nodes("CumSum", held, 0))  # (b*l) in sums
    by_step = nodes("Transpose", nodes("Reshape", place, nodes("Shape", "hold")), perm=[1, 0])
    return nodes("Gather", sums, by_step, axis=0)


def _flat_rows(nodes: Nodes, index: str, x: str) -> str:
    """``index (b k)`` or ``(1 k)`` into ``x (b l e)``, as numbers ``(b k)`` of the rows of the batch laid end to end."""
    images = nodes("Squeeze", nodes("Shape", x, start=0, end=1), [0])
    first = nodes("Mul", nodes("Range", 0, images, 1), nodes("Shape", x, start=1, end=2))
    return nodes("Add", nodes("Cast", index, to=TensorProto.INT64), nodes("Unsqueeze", first, [1]))


def _flat(nodes: Nodes, x: str) -> str:
    """``(b l e)`` -> ``(b*l e)``."""
    return nodes("Reshape", x, nodes("Concat", [-1], nodes("Shape", x, start=-1), axis=0))


def _take(nodes: Nodes, x: str, rows: str) -> str:
    """Those rows ``(b k)`` of ``x (b l e)``: ``(b k e)``."""
    return nodes("Gather", _flat(nodes, x), rows, axis=0)


def _put(nodes: Nodes, x: str, rows: str) -> str:
    """The inverse of :func:`_take`, where all rows are named."""
    flat, index = _flat(nodes, x), nodes("Reshape", rows, [-1, 1])
    there = nodes("ScatterND", nodes("ConstantOfShape", nodes("Shape", flat)), index, flat)
    return nodes("Reshape", there, nodes("Shape", x))


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
    return nodes("Transpose", _silu(nodes, y), perm=back)


def _silu(nodes: Nodes, x: str) -> str:
    return nodes("Mul", x, nodes("Sigmoid", x))


def _show(nodes: Nodes) -> tuple[str, str]:
    """The tokens of ``x`` at all positions ``(b L e)``, zeros where none is shown; and ``source (b L)``, int64."""
    shown = nodes("Reshape", nodes("Cast", "source", to=TensorProto.INT64), [0, -1])
    copies = _take(nodes, "x", _flat_rows(nodes, nodes("Max", shown, 0), "x"))
    return nodes("Mul", copies, _shows(nodes, shown)), shown


def _shows(nodes: Nodes, shown: str) -> str:
    """``(b L 1)``: 1 where a position shows a token, else 0."""
    return nodes("Unsqueeze", nodes("Cast", nodes("GreaterOrEqual", shown, 0), to=TensorProto.FLOAT), [-1])


def _mean_shown(nodes: Nodes, full: str, shown: str) -> str:
    """For each token of ``x`` the mean of ``full (b … e)`` over the positions that show it."""
    rows = nodes("Reshape", _flat_rows(nodes, nodes("Max", shown, 0), "x"), [-1, 1])
    weight = nodes("Reshape", _shows(nodes, shown), [-1, 1])
    none = nodes("ConstantOfShape", nodes("Shape", _flat(nodes, "x")))  # (b*l e)
    total = nodes("ScatterND", none, rows, nodes("Mul", _flat(nodes, full), weight), reduction="add")
    no_count = nodes("Slice", none, [0], [1], [1])  # (b*l 1)
    count = nodes("Max", nodes("ScatterND", no_count, rows, weight, reduction="add"), 1.0)
    return nodes("Reshape", nodes("Div", total, count), nodes("Shape", "x"))


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
