import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skimba.ops import native, selective_scan
from tests.ops.scan_inputs import NAMES, double, relative_error, scan_inputs, with_gradients

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
BACKENDS = ["reference", pytest.param("cpu", marks=needs_native)]
OPTIONAL = ("D", "z", "delta_bias", "gap", "step", "hold", "missing", "order")


def assert_matches(inputs, value=1e-5, gradient=1e-4, **options):
    expected = with_gradients(selective_scan, double(inputs), backend="reference", **options)
    got = with_gradients(selective_scan, inputs, backend="cpu", **options)
    # No gradient is more exact than the rounding of the largest one, whose terms are in it: some are zero but for that.
    largest = max(float(x.abs().max()) for name, x in expected.items() if name != "y")
    least = torch.finfo(torch.float32).eps * largest / gradient
    errors = {name: relative_error(got[name], x, 1e-30 if name == "y" else least) for name, x in expected.items()}
    if "grad_delta_bias" in errors:  # a sum of grad_delta that may cancel: its error is that of what it sums
        errors["grad_delta_bias"] = error_of_sum(got["grad_delta_bias"], expected, "grad_delta")
    bad = {name: e for name, e in errors.items() if not e <= (value if name == "y" else gradient)}
    assert not bad


def error_of_sum(got, expected, summed):
    """As relative_error of ``<summed>_bias``, against the largest value that it sums where that is larger than the sum."""
    wanted = expected[f"{summed}_bias"]
    scale = max(wanted.abs().max(), expected[summed].abs().max()).clamp_min(1e-30)
    return float((got.double() - wanted).abs().max() / scale)


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 63, 197, 300])
def test_matches_the_float64_reference_at_every_length(length, reverse, variant):
    with native.use(variant):
        assert_matches(scan_inputs(length), reverse=reverse)


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize(("channels", "states"), list(itertools.product([1, 5, 24, 130], [1, 8, 16, 20])))
def test_matches_at_every_number_of_channels_and_states(channels, states, variant):
    with native.use(variant):
        assert_matches(scan_inputs(19, channels, states), reverse=True)


@needs_native
@pytest.mark.parametrize("without", [c for k in range(7) for c in itertools.combinations(OPTIONAL, k)])
def test_each_optional_argument_may_be_absent(without):
    assert_matches(scan_inputs(17, without=without))


@needs_native
@pytest.mark.parametrize("reverse", [False, True])
def test_gap_per_channel(reverse):
    assert_matches(scan_inputs(150, gap_per_channel=True), reverse=reverse)


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize(("channels", "states"), [(1, 8), (24, 16), (130, 20)])
def test_matches_where_the_logarithm_of_A_is_given(channels, states, variant):
    inputs = scan_inputs(19, channels, states)
    with native.use(variant):
        assert_matches({**inputs, "A": (-inputs["A"]).log()}, log_A=True)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_logarithm_of_A_stands_for_it(backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    inputs = scan_inputs(19)
    y = selective_scan(**{**inputs, "A": (-inputs["A"]).log()}, log_A=True, backend=backend)
    torch.testing.assert_close(y, selective_scan(**inputs, backend=backend), rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("variant", native.variants())
def test_bfloat16_is_the_float32_scan_of_the_rounded_data(variant):
    data = ("u", "delta", "B", "C", "z")
    rounded = {k: x.bfloat16() if k in data else x for k, x in scan_inputs(70, 40).items()}
    expected = with_gradients(
        selective_scan, {k: x.float() if x.is_floating_point() else x for k, x in rounded.items()}, backend="reference"
    )
    with native.use(variant):
        got = with_gradients(selective_scan, rounded, backend="cpu")
    for name, x in expected.items():
        assert got[name].dtype == (torch.bfloat16 if name.removeprefix("grad_") in (*data, "y") else torch.float32)
        assert relative_error(got[name], x) <= 1e-2, name


@needs_native
def test_mixed_dtypes_are_computed_in_float32():
    inputs = scan_inputs(9)
    mixed = {**inputs, "B": inputs["B"].bfloat16()}
    exact = {**inputs, "B": inputs["B"].bfloat16().float()}
    assert torch.equal(selective_scan(**mixed), selective_scan(**exact))


@needs_native
@pytest.mark.parametrize("variant", native.variants())
def test_result_does_not_depend_on_the_number_of_threads(variant):
    inputs = scan_inputs(140, 130)
    results = []
    with native.use(variant):
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(with_gradients(selective_scan, inputs, backend="cpu"))
    for other in results[1:]:
        assert all(torch.equal(results[0][name], x) for name, x in other.items())


@needs_native
def test_a_gap_is_the_full_scan_without_input_at_missing_positions():
    inputs = scan_inputs(12, 24, without=("z", "gap", "step", "hold", "missing", "order"))
    kept = torch.tensor([0, 3, 4, 9])
    missing = torch.ones(12, dtype=torch.bool).index_fill(0, kept, False)
    inputs["u"] = inputs["u"].masked_fill(missing[None, :, None], 0.0)
    dt = torch.nn.functional.softplus(inputs["delta"] + inputs["delta_bias"])
    ends = dt.cumsum(1)
    gap = torch.diff(ends[:, kept], dim=1, prepend=torch.zeros(2, 1, 24)) - dt[:, kept]
    short = {k: x[:, kept] if k in ("u", "delta", "B", "C") else x for k, x in inputs.items()}
    torch.testing.assert_close(
        selective_scan(**short, gap=gap.clamp_min(0)), selective_scan(**inputs)[:, kept], rtol=1e-4, atol=1e-5
    )


@needs_native
def test_step_one_and_gap_zero_are_the_dense_scan_bit_for_bit():
    dense = scan_inputs(50, without=("gap", "step", "hold", "missing"))
    aligned = {**dense, "gap": torch.zeros(2, 50), "missing": torch.zeros(2, 50)}
    aligned |= {"step": torch.ones(2, 50), "hold": torch.ones(2, 50)}
    assert torch.equal(selective_scan(**dense), selective_scan(**aligned))


@needs_native
def test_nan_stays_in_its_channel():
    inputs = scan_inputs(10, without=("z", "order"))
    inputs["u"] = inputs["u"].clone()
    inputs["u"][0, 4, 3] = float("nan")
    y = selective_scan(**inputs, backend="cpu")
    assert y[0, 4:, 3].isnan().all()
    assert y.isnan().sum() == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_gives_an_empty_result(backend):
    found = with_gradients(selective_scan, scan_inputs(5, batch=0), backend=backend)
    assert found["y"].shape == (0, 5, 24)
    assert torch.equal(found["grad_A"], torch.zeros(24, 16))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gap_per_channel", [False, True])
@pytest.mark.parametrize(("channels", "states"), [(5, 3), (24, 16), (24, 20)])
def test_an_infinite_gap_empties_the_state(channels, states, gap_per_channel, backend):
    inputs = scan_inputs(21, channels, states, gap_per_channel=gap_per_channel, without=("order", "missing"))
    inputs["gap"] = inputs["gap"].clone()
    inputs["gap"][:, 9] = float("inf")
    found = with_gradients(selective_scan, inputs, backend=backend)
    assert all(x.isfinite().all() for x in found.values())
    rest = {name: x[:, 9:] if x.dim() > 1 and x.shape[1] == 21 else x for name, x in inputs.items()}
    rest["gap"] = rest["gap"].nan_to_num(posinf=0)
    torch.testing.assert_close(found["y"][:, 9:], selective_scan(**rest, backend=backend), rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("without", [(), OPTIONAL])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck(without, monkeypatch):
    monkeypatch.undo()
    inputs = scan_inputs(5, 6, without=without)
    arguments = [inputs.get(name) for name in NAMES]
    arguments = [None if x is None else x.detach().clone().requires_grad_(x.is_floating_point()) for x in arguments]
    for log_A in (False, True):
        torch.library.opcheck(torch.ops.skimba.selective_scan.default, (*arguments, True, log_A))


@needs_native
def test_export_keeps_the_operator_and_agrees():
    class Scan(torch.nn.Module):
        def forward(self, inputs):
            return selective_scan(**inputs)

    inputs = scan_inputs(9)
    program = torch.export.export(Scan(), (inputs,))
    assert any("skimba.selective_scan" in str(node.target) for node in program.graph.nodes)
    assert torch.equal(program.module()(inputs), selective_scan(**inputs))


@needs_native
def test_compiled_without_graph_breaks_it_is_the_same():
    inputs = scan_inputs(9)
    compiled = torch.compile(selective_scan, backend="aot_eager", fullgraph=True)
    expected, got = with_gradients(selective_scan, inputs), with_gradients(compiled, inputs)
    assert all(torch.equal(x, got[name]) for name, x in expected.items())


@needs_native
def test_inference_mode():
    inputs = scan_inputs(9)
    with torch.inference_mode():
        y = selective_scan(**inputs)
    assert torch.equal(y, selective_scan(**inputs))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"u": torch.zeros(3, 4)}, ValueError, r"u must have shape \(b l e\), got \(3, 4\)"),
        ({"u": torch.zeros(2, 0, 24)}, ValueError, "at least one element"),
        ({"u": torch.zeros(2, 9, 24, dtype=torch.int64)}, TypeError, "floating dtype, got torch.int64"),
        ({"delta": torch.zeros(2, 8, 24)}, ValueError, r"delta must have shape \(2, 9, 24\), got \(2, 8, 24\)"),
        ({"A": torch.zeros(24)}, ValueError, r"A must have shape \(24, n\), got \(24,\)"),
        ({"A": torch.zeros(24, 0)}, ValueError, "at least one element"),
        ({"u": None}, TypeError, "u must be a Tensor, got None"),
        ({"delta": None}, TypeError, "delta must be a Tensor, got None"),
        ({"A": None}, TypeError, "A must be a Tensor, got None"),
        ({"B": None}, TypeError, "B must be a Tensor, got None"),
        ({"C": None}, TypeError, "C must be a Tensor, got None"),
        ({"z": 1.0}, TypeError, "z must be a Tensor, got float"),
        ({"steps": torch.ones(2, 9)}, TypeError, "unexpected keyword argument 'steps'"),
        ({"B": torch.zeros(2, 9, 15)}, ValueError, "B must have shape"),
        ({"gap": torch.full((2, 9), -1.0)}, ValueError, "gap must be >= 0"),
        ({"gap": torch.full((2, 9, 24), float("nan"))}, ValueError, "gap must be >= 0"),
        ({"order": torch.zeros(2, 9).int()}, ValueError, "each token once"),
        ({"order": torch.arange(9)}, TypeError, "order must be int32"),
        ({"order": torch.arange(8).int()}, ValueError, "order must have shape"),
        ({"missing": torch.full((2, 9), -1.0)}, ValueError, "missing must be >= 0"),
        ({"step": torch.full((2, 9), float("nan"))}, ValueError, "step must be >= 0"),
        ({"hold": torch.full((2, 9), -0.5)}, ValueError, "hold must be >= 0, finite"),
        ({"hold": torch.full((2, 9), float("inf"))}, ValueError, "hold must be >= 0, finite"),
        ({"hold": torch.ones(9)}, ValueError, r"hold must have shape \(2, 9\), got \(9,\)"),
        ({"missing": torch.full((2, 9), float("inf"))}, ValueError, "missing must be >= 0, finite"),
        ({"step": torch.full((2, 9), float("inf"))}, ValueError, "step must be >= 0, finite"),
        ({"step": torch.zeros(2, 9, 24)}, ValueError, "step must have shape"),
        ({"backend": "cuda"}, ValueError, "backend must be"),
    ],
)
def test_bad_input_says_what_is_allowed(change, error, message):
    with pytest.raises(error, match=message):
        selective_scan(**{**scan_inputs(9), **change})


@needs_native
def test_a_named_backend_that_cannot_run_says_why():
    with pytest.raises(TypeError, match=r"backend 'cpu' needs float32 or bfloat16 on cpu, got torch\.float64"):
        selective_scan(**double(scan_inputs(3)), backend="cpu")
    assert selective_scan(**double(scan_inputs(3))).dtype == torch.float64


@needs_native
@pytest.mark.parametrize(("batch", "seed"), [(1, 4), (2, 7)])
def test_where_a_long_hold_leaves_a_gradient_of_zero_its_rounding_is_small(batch, seed):
    inputs = scan_inputs(1, 1, 1, batch, seed=seed)
    assert with_gradients(selective_scan, double(inputs), backend="reference")["grad_hold"].abs().max() < 1e-18
    assert_matches(inputs)


@needs_native
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_shape_and_stride(data):
    at_any_shape_and_stride(data.draw)


@needs_native
@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_shape_and_stride_at_length(data):
    at_any_shape_and_stride(data.draw)


def at_any_shape_and_stride(draw):
    inputs = scan_inputs(
        draw(st.integers(1, 150)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 18)),
        draw(st.integers(1, 3)),
        tuple(draw(st.sets(st.sampled_from(OPTIONAL)))),
        draw(st.booleans()),
        draw(st.integers(0, 9)),
    )
    for name in draw(st.sets(st.sampled_from(sorted(inputs)))):
        inputs[name] = inputs[name].mT.contiguous().mT if inputs[name].dim() > 1 else inputs[name]
    torch.set_num_threads(draw(st.integers(1, 3)))
    with native.use(draw(st.sampled_from(native.variants()))):
        assert_matches(inputs, reverse=draw(st.booleans()))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_allocation_that_fails_raises(backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    one = torch.zeros(1, 1, 1)
    wide = one.expand(1, 2**20, 2**26)  # would be 256 TiB
    states = one.expand(1, 2**20, 1)
    with pytest.raises((MemoryError, RuntimeError), match=r"alloc|memory"):
        selective_scan(wide, wide, torch.zeros(1, 1).expand(2**26, 1), states, states, backend=backend)
