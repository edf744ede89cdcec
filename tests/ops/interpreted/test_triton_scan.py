import itertools

import pytest
import torch

from skimba.ops import selective_scan
from tests.ops.interpreted.conftest import change
from tests.ops.scan_inputs import NAMES, double, relative_error, scan_inputs, with_gradients
from tests.ops.test_selective_scan import OPTIONAL, error_of_sum

DATA = ("u", "delta", "B", "C", "z")
TIMES = ("gap", "step", "hold", "missing")


def assert_matches(inputs, **options):
    expected = with_gradients(selective_scan, double(inputs), backend="reference", **options)
    got = with_gradients(selective_scan, inputs, backend="triton", **options)
    errors = {name: relative_error(got[name], expected[name]) for name in expected}
    if "grad_delta_bias" in errors:  # a sum that may cancel
        errors["grad_delta_bias"] = error_of_sum(got["grad_delta_bias"], expected, "grad_delta")
    bad = {name: e for name, e in errors.items() if not e <= (1e-5 if name == "y" else 1e-4)}
    assert not bad


@pytest.mark.parametrize(("without", "reverse"), [((), True), (OPTIONAL, False)])
def test_matches_with_every_option_and_with_none(without, reverse):
    assert_matches(scan_inputs(9, 5, 3, without=without), reverse=reverse)


def test_matches_with_a_gap_per_channel_and_the_logarithm_of_A():
    inputs = scan_inputs(9, 5, 3, batch=1, gap_per_channel=True, without=("hold", "z", "order"))
    assert_matches({**inputs, "A": (-inputs["A"]).log()}, log_A=True)


@pytest.mark.parametrize("without", [("hold",), ("z", "gap")])
def test_segments_of_a_sequence_are_the_whole(monkeypatch, without):
    change(monkeypatch, "scan", steps=4)
    assert_matches(scan_inputs(9, 5, 3, batch=1, without=without), reverse=True)


def test_several_tiles_of_channels_match(one_segment):
    assert_matches(scan_inputs(5, 70, 2, batch=1, without=("hold", "gap")))


def test_bfloat16_is_the_float32_scan_of_the_rounded_data():
    rounded = {k: x.bfloat16() if k in DATA else x for k, x in scan_inputs(4, 8, 4, batch=1).items()}
    wide = {k: x.float() if x.is_floating_point() else x for k, x in rounded.items()}
    y = selective_scan(**rounded, backend="triton")
    expected = selective_scan(**wide, backend="triton")
    # The interpreter cuts a stored bfloat16 off where a GPU rounds it: one unit in the last place.
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=0)
    got, expected = (with_gradients(selective_scan, x, backend="triton") for x in (rounded, wide))
    for name, x in expected.items():
        assert got[name].dtype == (torch.bfloat16 if name.removeprefix("grad_") in (*DATA, "y") else torch.float32)
        assert relative_error(got[name], x) <= 2e-2, name


def test_mixed_dtypes_are_computed_in_float32():
    inputs = scan_inputs(5, 4, 2)
    mixed = {**inputs, "B": inputs["B"].bfloat16()}
    exact = {**inputs, "B": inputs["B"].bfloat16().float()}
    assert torch.equal(selective_scan(**mixed, backend="triton"), selective_scan(**exact, backend="triton"))


def test_an_empty_batch_gives_an_empty_result():
    found = with_gradients(selective_scan, scan_inputs(5, batch=0), backend="triton")
    assert found["y"].shape == (0, 5, 24)
    assert torch.equal(found["grad_A"], torch.zeros(24, 16))


@pytest.mark.parametrize("gap_per_channel", [False, True])
def test_an_infinite_gap_empties_the_state(gap_per_channel):
    inputs = scan_inputs(9, 5, 3, batch=1, gap_per_channel=gap_per_channel, without=("order", "missing"))
    inputs["gap"] = inputs["gap"].clone()
    inputs["gap"][:, 4] = float("inf")
    found = with_gradients(selective_scan, inputs, backend="triton")
    assert all(x.isfinite().all() for x in found.values())
    rest = {name: x[:, 4:] if x.dim() > 1 and x.shape[1] == 9 else x for name, x in inputs.items()}
    rest["gap"] = rest["gap"].nan_to_num(posinf=0)
    torch.testing.assert_close(found["y"][:, 4:], selective_scan(**rest, backend="triton"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_not_allowed_gives_nan_from_there_on(name, wrong):
    if name == "gap" and wrong == float("inf"):
        return
    inputs = scan_inputs(5, 4, 2, batch=1, without=("order", *(t for t in TIMES if t != name)))
    inputs[name] = inputs[name].clone()
    inputs[name][0, 2] = wrong
    y = selective_scan(**inputs, backend="triton")
    assert y[:, :2].isfinite().all()
    assert y[:, 2:].isnan().all()


def test_an_order_that_names_no_token_reads_and_writes_nothing_outside():
    inputs = scan_inputs(5, 4, 2, batch=1, without=TIMES)
    inputs["order"] = torch.tensor([0, 1, 7, 3, 2], dtype=torch.int32)
    y = selective_scan(**inputs, backend="triton")
    assert y[:, :2].isfinite().all()
    assert y[:, 2:].isnan().all()


def test_any_strides():
    inputs = scan_inputs(6, 5, 3, batch=2, without=("hold",))
    for name, x in inputs.items():
        inputs[name] = x.mT.contiguous().mT if x.dim() > 1 else x
    assert_matches(inputs)


def test_results_do_not_change_from_run_to_run():
    first, second = (with_gradients(selective_scan, scan_inputs(2, 40, 3, batch=1), backend="triton") for _ in range(2))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("without", [c for k in range(9) for c in itertools.combinations(OPTIONAL, k)])
def test_each_optional_argument_may_be_absent(without):
    assert_matches(scan_inputs(17, without=without), reverse=len(without) % 2 == 1)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 63, 197])
def test_matches_at_every_length(length, reverse, one_segment):
    assert_matches(scan_inputs(length), reverse=reverse)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [32, 33, 197])
def test_matches_at_every_length_in_segments(length, reverse):
    assert_matches(scan_inputs(length), reverse=reverse)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "states"), list(itertools.product([1, 5, 24, 130], [1, 8, 16, 20])))
def test_matches_at_every_number_of_channels_and_states(channels, states):
    assert_matches(scan_inputs(19, channels, states), reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with gap and missing"])
@pytest.mark.parametrize("product", [1e-8, 1e-5, 1e-3, 0.03, 0.3, 3.0, 30.0, 1e3])
def test_held_tokens_are_stable_from_the_smallest_to_the_largest_exponents(product, alone):
    """hold · Δ · |A| is ``product``, for whole and for other numbers held."""
    inputs = scan_inputs(24, 20, 5, without=("order", "step", "delta_bias") + (("gap", "missing") if alone else ()))
    hold = torch.tensor([0.0, 1.0, 2.0, 3.0, 7.0, 16.0, 17.0, 100.0, 0.3, 1.5, 2.0001, 31.25]).repeat(2)
    inputs["hold"] = hold.expand(2, -1).contiguous()
    delta = (product / hold.clamp_min(1)).log().clamp(max=5)
    delta = torch.where(delta > 1, product / hold.clamp_min(1), delta)
    inputs["delta"] = inputs["delta"] * 0.1 + delta[:, None]
    assert_matches(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("held", [2.0, 5.0, 16.0, 100.0, 2.5])
def test_each_number_held_matches_by_itself(held):
    inputs = scan_inputs(30, 20, 5)
    inputs["hold"] = torch.where(torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) < 0.5, 1.0, held)
    assert_matches(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), OPTIONAL])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck(without, monkeypatch):
    monkeypatch.undo()
    inputs = scan_inputs(5, 6, without=without)
    arguments = [inputs.get(name) for name in NAMES]
    arguments = [None if x is None else x.detach().clone().requires_grad_(x.is_floating_point()) for x in arguments]
    torch.library.opcheck(torch.ops.skimba.selective_scan.default, (*arguments, True, False))
