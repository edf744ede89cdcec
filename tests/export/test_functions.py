"""The operators in onnxruntime, as functions and as our library, with every option, compute what they compute here."""

from itertools import combinations

import pytest
import torch

from skimba.ops import add_rms_norm, causal_conv1d, depthwise_conv2d, int8_linear, int8_weight, selective_scan
from tests.export.conftest import KERNELS, ours
from tests.ops.scan_inputs import relative_error, scan_inputs

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
functions = pytest.importorskip("skimba.export.functions")

REQUIRED = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def model_of(function, inputs, **attributes):
    """A model of one call."""
    helper = onnx.helper
    kinds = {
        torch.float32: onnx.TensorProto.FLOAT,
        torch.int32: onnx.TensorProto.INT32,
        torch.int8: onnx.TensorProto.INT8,
    }
    given = [helper.make_tensor_value_info(name, kinds[x.dtype], [None] * x.dim()) for name, x in inputs.items()]
    axes = [None] * next(iter(inputs.values())).dim()  # results are as long as the first
    results = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes) for name in function.outputs]
    call = helper.make_node(function.name, function.inputs, function.outputs, domain=functions.DOMAIN, **attributes)
    graph = helper.make_graph([call], "one", given, results)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(functions.DOMAIN, functions.VERSION)]
    return helper.make_model(graph, opset_imports=imports, functions=[function.proto(18)], ir_version=8)


@pytest.fixture(params=KERNELS)
def run(request):
    """Runs a function in onnxruntime: one of its own operators, or ours."""

    def run_in(function, inputs, **attributes):
        model = model_of(function, inputs, **attributes)
        onnx.checker.check_model(model, full_check=True)
        options = KERNELS[request.param]()
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [torch.from_numpy(y) for y in session.run(None, {name: x.numpy() for name, x in inputs.items()})]

    return run_in


def scan_case(given, length=17, **sizes):
    every = scan_inputs(length, **sizes)
    return {name: every[name].contiguous() for name in (*REQUIRED, *given)}


def subsets():
    """Each option alone, none, all but one or the other of ``hold`` and ``step``; all the rest when slow."""
    options = functions.SCAN_OPTIONS
    few = {(), *((option,) for option in options), options, ("z", "missing", "order"), ("gap", "hold")}
    for count in range(len(options) + 1):
        for given in combinations(options, count):
            marks = () if given in few else pytest.mark.slow
            yield pytest.param(given, id="-".join(given) or "none", marks=marks)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("given", list(subsets()))
def test_a_scan_is_that_of_the_operators(run, given, reverse):
    inputs = scan_case(given)
    expected = selective_scan(**inputs, reverse=reverse)
    if "gap" in given:
        inputs["gap"] = inputs["gap"][..., None]
    (got,) = run(functions.selective_scan(given, reverse), inputs)
    assert relative_error(got, expected) < 2e-6


def test_a_gap_may_be_infinite_or_differ_by_channel_and_an_order_be_shared(run):
    inputs = scan_case(("gap", "order"), gap_per_channel=True)
    inputs["gap"][:, 5] = torch.inf
    inputs["order"] = inputs["order"][0]
    expected = selective_scan(**inputs)
    inputs["order"] = inputs["order"][None]
    (got,) = run(functions.selective_scan(("gap", "order"), False), inputs)
    assert relative_error(got, expected) < 2e-6


@pytest.mark.parametrize("time", [1e-6, 1.0, 300.0])
def test_a_step_may_be_tiny_or_huge(run, time):
    inputs = scan_case(("hold",))
    inputs["delta"] = torch.full_like(inputs["delta"], time).log()
    (got,) = run(functions.selective_scan(("hold",), False), inputs)
    assert relative_error(got, selective_scan(**inputs)) < 2e-6


@pytest.mark.parametrize("numbers", [[1.0], [2.0], [1.0, 2.0], [0.0, 0.5, 3.0], [1.0, 2.0, 3.0, 7.0]])
def test_tokens_may_be_held_any_number_of_times(run, numbers):
    inputs = scan_case(("hold",))
    inputs["hold"] = torch.tensor(numbers)[torch.arange(2 * 17) % len(numbers)].view(2, 17)
    (got,) = run(functions.selective_scan(("hold",), False), inputs)
    assert relative_error(got, selective_scan(**inputs)) < 2e-6


def shown(positions, tokens=5, batch=2):
    source = torch.randint(-1, tokens, (batch, *positions), generator=torch.Generator().manual_seed(0)).int()
    return source.where(source != 3, -1)  # a token that no position shows


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("source", [None, shown((9,))], ids=["dense", "source"])
def test_a_convolution_along_the_sequence_is_that_of_the_operators(run, source, reverse):
    inputs = {"x": torch.randn(2, 5, 6), "weight": torch.randn(6, 4), "bias": torch.randn(6)}
    expected = causal_conv1d(**inputs, source=source, reverse=reverse)
    if source is not None:
        inputs["source"] = source
    function = functions.causal_conv1d(source is not None, reverse)
    (got,) = run(function, inputs, channels=6, pads=[0, 3] if reverse else [3, 0])
    assert relative_error(got, expected) < 2e-6


@pytest.mark.parametrize("source", [None, shown((3, 4))], ids=["dense", "source"])
def test_a_convolution_over_the_grid_is_that_of_the_operators(run, source):
    x = torch.randn(2, 3, 4, 6) if source is None else torch.randn(2, 5, 6)
    inputs = {"x": x, "weight": torch.randn(6, 3, 5), "bias": torch.randn(6)}
    expected = depthwise_conv2d(**inputs, source=source)
    if source is not None:
        inputs["source"] = source
    (got,) = run(functions.depthwise_conv2d(source is not None), inputs, channels=6, pads=[1, 2, 1, 2])
    assert relative_error(got, expected) < 2e-6


@pytest.mark.parametrize("residual", [None, torch.randn(2, 3, 7)], ids=["first", "residual"])
def test_a_norm_is_that_of_the_operators(run, residual):
    x, weight = torch.randn(2, 3, 7), torch.randn(7)
    inputs = {"x": x, "weight": weight} if residual is None else {"x": x, "weight": weight, "residual": residual}
    got = run(functions.add_rms_norm(residual is not None), inputs, eps=1e-2)
    for y, expected in zip(got, add_rms_norm(x, residual, weight, 1e-2), strict=True):
        assert relative_error(y, expected) < 2e-6


def test_our_library_runs_where_it_is_registered_and_says_what_is_wrong():
    """The functions know no such refusal."""
    inputs = scan_case(("step",))
    inputs["step"][1, 3] = -1
    model = model_of(functions.selective_scan(("step",), False), inputs).SerializeToString()
    arrays = {name: x.numpy() for name, x in inputs.items()}
    session = runtime.InferenceSession(model, ours(), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="SelectiveScan_step: step must be >= 0, finite and not NaN"):
        session.run(None, arrays)
    assert runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, arrays)


@pytest.mark.parametrize("bias", [None, torch.randn(11)], ids=["plain", "bias"])
def test_a_product_in_8_bits_is_that_of_the_operators(run, bias):
    weight, scale = int8_weight(torch.randn(11, 70))
    inputs = {"x": torch.randn(2, 5, 70), "weight": weight, "scale": scale}
    inputs |= {} if bias is None else {"bias": bias}
    inputs["x"][0, 1] = 0
    (got,) = run(functions.int8_linear(bias is not None), inputs)
    assert relative_error(got, int8_linear(**inputs)) < 2e-6


@pytest.mark.parametrize("given", [("z", "missing"), ("hold", "order")])
def test_openvino_takes_the_functions_once_they_are_inlined(tmp_path, given):
    openvino = pytest.importorskip("openvino")
    inliner = pytest.importorskip("onnx.inliner")
    inputs = scan_case(given)
    model = inliner.inline_local_functions(model_of(functions.selective_scan(given, True), inputs))
    onnx.save(model, tmp_path / "m.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = torch.from_numpy(compiled({name: x.numpy() for name, x in inputs.items()})[0])
    assert relative_error(got, selective_scan(**inputs, reverse=True)) < 1e-5
