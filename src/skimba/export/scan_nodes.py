"""The nodes of a selective scan: one ``Scan`` of ONNX over its steps. Axis letters as in :mod:`skimba.export.functions`."""

from __future__ import annotations

from onnx import GraphProto, TensorProto, helper

from skimba.export.nodes import Nodes
from skimba.export.pieces import flat_rows, flat_tokens, put, silu, take

Axes = tuple[str | int, ...]
LARGEST = 3.4028234e38  # of float32
LEAST_TIME = 1e-20  # shorter steps count as this: from there on, a held sum is the hold itself


def write_scan(nodes: Nodes, given: tuple[str, ...], reverse: bool) -> None:
    rows = flat_rows(nodes, "order", "u") if "order" in given else None
    visited = "u" if rows is None else take(nodes, "u", rows)
    dt, time = _times(nodes, given, reverse)
    held_sum = _held_sum(nodes, dt) if "hold" in given else None
    y = _recurrence(nodes, time, nodes("Mul", dt, visited), held_sum, reverse)
    if rows is not None:
        y = put(nodes, y, rows)
    y = nodes("Add", y, nodes("Mul", "u", "D"))
    nodes.rename(nodes("Mul", y, silu(nodes, "z")) if "z" in given else y, "y")


def _times(nodes: Nodes, given: tuple[str, ...], reverse: bool) -> tuple[str, str]:
    """How long each step lasts for its input and for the state, ``(b l e)``."""
    plain = _softplus(nodes, nodes("Add", "delta", "delta_bias"))
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


def _softplus(nodes: Nodes, x: str) -> str:
    """``log(1 + y)`` with ``y = exp(x)``, and what ``1 + y`` rounds off; from 16 on ``x`` itself. In onnxruntime the operator
    Softplus takes seven times as long."""
    y = nodes("Exp", nodes("Min", x, 16.0))
    total = nodes("Add", y, 1.0)
    lost = nodes("Sub", y, nodes("Sub", total, 1.0))
    return nodes("Max", x, nodes("Add", nodes("Log", total), nodes("Div", lost, total)))


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
    """``(l b n e)``: ``expm1(hold · q) / expm1(q)`` with ``q = dt A``.

    It is 1 for tokens that are held once, and found for all others: most of them are held twice, which takes a third of the
    time of any other number.
    """
    hold = nodes("Reshape", "hold", [-1])  # (b*l)
    is_two = nodes("Equal", hold, 2.0)
    twos = _where(nodes, is_two)
    others = _where(nodes, nodes("Not", nodes("Or", nodes("Equal", hold, 1.0), is_two)))
    dt, hold = flat_tokens(nodes, dt), nodes("Unsqueeze", hold, [1])
    A = nodes("Transpose", "A", perm=[1, 0])  # (n e)
    one = nodes("Add", nodes("Mul", nodes("Unsqueeze", A, [0]), 0.0), 1.0)  # (1 n e)
    of_twos = nodes("Add", nodes("Exp", nodes("Mul", _rows(nodes, dt, twos), A)), 1.0)
    of_others = _any_held_sum(nodes, A, _rows(nodes, dt, others), _rows(nodes, hold, others))
    sums = nodes("Concat", one, of_twos, of_others, axis=0)
    held = nodes("Concat", twos, others, axis=0)
    numbers = nodes("Range", 1, nodes("Add", nodes("Size", held), 1), 1)
    none = nodes("Mul", nodes("Cast", is_two, to=TensorProto.INT64), 0)
    place = nodes("ScatterElements", none, held, numbers, axis=0)  # (b*l) in sums
    by_step = nodes("Transpose", nodes("Reshape", place, nodes("Shape", "hold")), perm=[1, 0])
    return nodes("Gather", sums, by_step, axis=0)


def _any_held_sum(nodes: Nodes, A: str, dt: str, hold: str) -> str:
    """``(k n e)``. As ``expm1(q) = 2 t / (1 - t)`` with ``t = tanh(q / 2)``, it is exact near zero, too."""
    half = nodes("Mul", nodes("Max", dt, LEAST_TIME), nodes("Mul", A, 0.5))
    once, often = nodes("Tanh", half), nodes("Tanh", nodes("Mul", half, hold))
    both = nodes("Mul", once, often)
    return nodes("Div", nodes("Sub", often, both), nodes("Sub", once, both))


def _where(nodes: Nodes, true: str) -> str:
    """The numbers of what is true in a row."""
    return nodes("Squeeze", nodes("NonZero", true), [0])


def _rows(nodes: Nodes, x: str, numbers: str) -> str:
    """Those of ``x (r c)``: ``(k 1 c)``."""
    return nodes("Unsqueeze", nodes("Gather", x, numbers, axis=0), [1])
