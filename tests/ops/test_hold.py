"""A token that stands for several positions: the scan goes on as if it stood at each of them."""

import pytest
import torch

from skimba.ops import native, selective_scan
from skimba.ops.backends.reference import held_sum
from tests.ops.scan_inputs import double, relative_error, scan_inputs, with_gradients

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
VARIANTS = native.variants()


def repeated(inputs, counts, order):
    """The dense scan's inputs: every token as often as it is held, in the order of the steps."""
    rows = torch.arange(len(counts)).repeat_interleave(counts)
    dense = {name: inputs[name][:, rows] for name in ("u", "delta", "B", "C", "z") if name in inputs}
    if order is not None:
        dense |= {name: inputs[name][:, order.long()][:, rows] for name in ("u", "z")}
    return {**{name: inputs[name] for name in ("A", "D", "delta_bias")}, **dense}


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_over_owners_is_the_dense_scan_over_the_repeated_tokens(reverse, ordered):
    inputs = double(scan_inputs(12, without=("gap", "step", "hold", "missing", "order")))
    counts = torch.tensor([1, 3, 2, 1, 7, 1, 1, 20, 4, 1, 2, 5])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3)).int() if ordered else None
    held = selective_scan(**inputs, hold=counts.double().expand(2, -1), order=order, reverse=reverse)
    if order is not None:
        held = held[:, order.long()]
    dense = selective_scan(**repeated(inputs, counts, order), reverse=reverse)
    last = counts.cumsum(0) - 1 if not reverse else counts.cumsum(0) - counts
    torch.testing.assert_close(held, dense[:, last], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_its_gradients_are_those_of_the_dense_scan(reverse):
    inputs = double(scan_inputs(6, 5, 4, without=("gap", "step", "hold", "missing", "order", "z", "D")))
    counts = torch.tensor([1, 3, 2, 1, 17, 2])
    last = counts.cumsum(0) - 1 if not reverse else counts.cumsum(0) - counts

    def dense(**leaves):
        rows = torch.arange(6).repeat_interleave(counts)
        full = {name: x[:, rows] if name in ("u", "delta", "B", "C") else x for name, x in leaves.items()}
        return selective_scan(**full, reverse=reverse, backend="reference")[:, last]

    def held(**leaves):
        return selective_scan(**leaves, hold=counts.double().expand(2, -1), reverse=reverse)

    expected, got = with_gradients(dense, inputs), with_gradients(held, inputs)
    for name, x in expected.items():
        torch.testing.assert_close(got[name], x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("exponent", [-1e-8, -1e-5, -1e-2, -0.029, -0.031, -0.5, -5.0, -300.0])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 40])
def test_the_sum_and_its_derivatives_are_those_of_the_powers(exponent, count):
    x, s = (
        torch.tensor(exponent, dtype=torch.float64, requires_grad=True),
        torch.tensor(float(count), dtype=torch.float64),
    )
    found = held_sum(x, s)
    powers = sum((torch.exp(k * x) for k in range(count)), 0 * x)
    torch.testing.assert_close(found, powers, rtol=1e-12, atol=1e-14)
    slopes = [torch.autograd.grad(y, x)[0] for y in (found, powers)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-11)


def test_where_the_exponent_is_zero_the_sum_is_the_count_and_so_are_its_derivatives():
    for count in (0.0, 0.5, 1.0, 2.5, 100.0):
        x, s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.0, count))
        y = held_sum(x, s)
        by_x, by_s = torch.autograd.grad(y, (x, s))
        torch.testing.assert_close(
            torch.stack([y, by_x, by_s]), torch.tensor([count, count * (count - 1) / 2, 1.0]).double()
        )


@pytest.mark.parametrize("held", [0.5, 2.0, 2.5, 16.0, 40.0])
def test_gradients_pass_gradcheck_between_whole_numbers_too(held):
    inputs = double(scan_inputs(4, 3, 2, batch=1, without=("missing", "order", "z")))
    inputs["hold"], inputs["gap"] = torch.full_like(inputs["hold"], held), inputs["gap"] + 0.1
    names = list(inputs)
    leaves = [inputs[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(lambda *x: selective_scan(**dict(zip(names, x, strict=True))), leaves)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with gap and missing"])
@pytest.mark.parametrize("product", [1e-8, 1e-5, 1e-3, 0.03, 0.3, 3.0, 30.0, 1e3])
def test_kernels_are_stable_from_the_smallest_to_the_largest_exponents(product, alone, variant):
    """s · Δ · |A| is ``product``, for whole and for other s."""
    inputs = scan_inputs(24, 20, 5, without=("order", "step", "delta_bias") + (("gap", "missing") if alone else ()))
    hold = torch.tensor([0.0, 1.0, 2.0, 3.0, 7.0, 16.0, 17.0, 100.0, 0.3, 1.5, 2.0001, 31.25]).repeat(2)
    inputs["hold"] = hold.expand(2, -1).contiguous()
    delta = (product / hold.clamp_min(1)).log().clamp(max=5)  # softplus(x) is close to e^x, or to x
    delta = torch.where(delta > 1, product / hold.clamp_min(1), delta)
    inputs["delta"] = inputs["delta"] * 0.1 + delta[:, None]
    expected = with_gradients(selective_scan, double(inputs), backend="reference")
    with native.use(variant):
        got = with_gradients(selective_scan, inputs, backend="cpu")
    for name, x in expected.items():
        assert relative_error(got[name], x) <= (1e-5 if name == "y" else 1e-4), name


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("held", [2.0, 5.0, 16.0, 100.0, 2.5])
def test_each_number_held_matches_by_itself(held, variant):
    """So that an error in one of them is not hidden by larger results of the others."""
    inputs = scan_inputs(30, 20, 5)
    inputs["hold"] = torch.where(torch.rand(2, 30, generator=torch.Generator().manual_seed(0)) < 0.5, 1.0, held)
    expected = with_gradients(selective_scan, double(inputs), backend="reference")
    with native.use(variant):
        got = with_gradients(selective_scan, inputs, backend="cpu")
    for name, x in expected.items():
        assert relative_error(got[name], x) <= (1e-5 if name == "y" else 1e-4), name


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_is_the_float32_scan_of_the_rounded_data(variant):
    data = ("u", "delta", "B", "C", "z")
    rounded = {name: x.bfloat16() if name in data else x for name, x in scan_inputs(40, 20).items()}
    wide = {name: x.float() if name in data else x for name, x in rounded.items()}
    with native.use(variant):
        assert torch.equal(selective_scan(**rounded), selective_scan(**wide).bfloat16())
        got, expected = (with_gradients(selective_scan, x) for x in (rounded, wide))
    assert relative_error(got["grad_hold"], expected["grad_hold"]) <= 1e-2


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_of_the_number_held_does_not_change_the_others(variant):
    inputs = scan_inputs(40, 20)
    with native.use(variant):
        everything = with_gradients(selective_scan, inputs)
        hold = inputs.pop("hold")
        rest = with_gradients(lambda **leaves: selective_scan(**leaves, hold=hold), inputs)
    assert all(torch.equal(x, everything[name]) for name, x in rest.items() if name != "grad_step")
    assert relative_error(rest["grad_step"], everything["grad_step"]) <= 1e-6


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
def test_a_token_that_holds_nothing_adds_nothing_and_takes_no_time(backend):
    inputs = scan_inputs(9, without=("gap", "missing", "order", "step", "D", "hold"))
    hold = torch.ones(2, 9)
    hold[:, 4] = 0
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    short = {name: x[:, kept] if x.dim() == 3 else x for name, x in inputs.items()}
    held = selective_scan(**inputs, hold=hold, backend=backend)[:, kept]
    torch.testing.assert_close(held, selective_scan(**short, backend=backend), rtol=1e-6, atol=1e-6)
