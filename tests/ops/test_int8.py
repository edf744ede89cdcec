"""The product in 8-bit integers: exact, row by row, on every instruction set."""

import pytest
import torch

from skimba.ops import int8_linear, int8_weight, native
from tests.ops.scan_inputs import relative_error

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
backends = pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])


def product(length=7, width=40, outputs=24, with_bias=True, batch=2):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, length, width, generator=g) * torch.rand(batch, length, 1, generator=g).exp2()
    weight, scale = int8_weight(torch.randn(outputs, width, generator=g))
    bias = torch.randn(outputs, generator=g) if with_bias else None
    return x, weight, scale, bias


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("length", "width", "outputs"), [(1, 1, 1), (7, 5, 3), (63, 64, 17), (197, 130, 96)])
def test_kernels_match_the_reference(length, width, outputs, with_bias, variant):
    inputs = product(length, width, outputs, with_bias)
    with native.use(variant):
        got = int8_linear(*inputs, backend="cpu")
    assert relative_error(got, int8_linear(*inputs, backend="reference")) <= 1e-6


@needs_native
def test_bfloat16_is_the_product_of_the_rounded_input():
    x, *rest = product()
    expected = int8_linear(x.bfloat16().float(), *rest, backend="cpu").bfloat16()
    assert torch.equal(int8_linear(x.bfloat16(), *rest, backend="cpu"), expected)


@backends
def test_whole_numbers_are_multiplied_exactly(backend):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (2, 5, 64), generator=g).float()
    x[..., 0], weight = 127, torch.randint(-127, 128, (8, 64), generator=g).char()
    got = int8_linear(x, weight, torch.ones(8), backend=backend)
    assert torch.equal(got.double(), x.double() @ weight.double().t())


@backends
def test_the_largest_products_do_not_saturate(backend):
    """On instruction sets without products of 8-bit integers, sums of two could be cut off at 16 bits."""
    x, weight = torch.full((1, 3, 96), 127.0), torch.full((5, 96), 127, dtype=torch.int8)
    weight[1] = -127
    got = int8_linear(x, weight, torch.ones(5), backend=backend)
    assert torch.equal(got[0, 0, :2], torch.tensor([1.0, -1.0]) * 127 * 127 * 96)


@needs_native
def test_a_cpu_without_vnni_gives_the_same(monkeypatch):
    x, weight, scale, bias = product(length=50, width=96)
    x[:] = x.abs()
    weight[0], weight[1], weight[2] = 127, -127, 1
    expected = int8_linear(x, weight, scale, bias, backend="cpu")
    monkeypatch.setattr("skimba.ops.backends.cpu.int8_saturates", lambda: True)
    assert torch.equal(int8_linear(x, weight, scale, bias, backend="cpu"), expected)


@backends
def test_a_row_does_not_depend_on_the_others(backend):
    x, *rest = product()
    y = int8_linear(x, *rest, backend=backend)
    x[0, 1:] *= 1000
    assert torch.equal(int8_linear(x, *rest, backend=backend)[0, 0], y[0, 0])
    assert torch.equal(int8_linear(x[1:], *rest, backend=backend), y[1:])


@backends
def test_rows_of_zeros_tiny_values_and_what_is_not_finite(backend):
    x, weight, scale, bias = product(length=6, batch=1)
    x[0, 0], x[0, 1], x[0, 2, 3], x[0, 3, 4], x[0, 4] = 0, 1e-38, torch.nan, torch.inf, x[0, 4] * 1e-20
    y = int8_linear(x, weight, scale, bias, backend=backend)[0]
    assert torch.equal(y[0], bias)
    assert torch.equal(y[1], bias)
    assert y[2:4].isnan().all()
    assert y[4:].isfinite().all()
    zero = int8_weight(torch.zeros(3, 4))
    assert torch.equal(int8_linear(torch.randn(1, 2, 4), *zero, backend=backend), torch.zeros(1, 2, 3))


@needs_native
def test_strides_threads_and_empty_batches_change_nothing():
    x, *rest = product(length=50)
    wide = torch.zeros(2, 60, 80)
    wide[:, 10:, 40:] = x
    expected = int8_linear(x, *rest)
    assert torch.equal(int8_linear(wide[:, 10:, 40:], *rest), expected)
    assert torch.equal(int8_linear(x.mT.contiguous().mT, *rest), expected)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(int8_linear(x, *rest), expected)
    assert int8_linear(x[:0], *rest).shape == (0, 50, 24)


def test_an_8_bit_weight_is_within_half_a_step():
    weight = torch.randn(9, 30, generator=torch.Generator().manual_seed(0))
    values, scale = int8_weight(weight)
    assert values.dtype == torch.int8
    assert int(values.abs().max()) == 127
    assert ((values * scale[:, None] - weight).abs() <= 0.501 * scale[:, None]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck(monkeypatch, dtype):
    monkeypatch.undo()
    x, weight, scale, bias = product()
    for b in (bias, None):
        torch.library.opcheck(torch.ops.skimba.int8_linear.default, (x.to(dtype), weight, scale, b))


def test_a_gradient_is_refused():
    x, *rest = product()
    with pytest.raises(RuntimeError, match="int8_linear has no gradient: train the model before"):
        int8_linear(x.requires_grad_(), *rest).sum().backward()


def test_bad_input_says_what_is_allowed():
    x, weight, scale, bias = product()
    with pytest.raises(TypeError, match=r"weight must be int8, got torch\.float32"):
        int8_linear(x, weight.float(), scale)
    with pytest.raises(ValueError, match=r"weight must have shape \(24, 40\), got \(24, 39\)"):
        int8_linear(x, weight[:, 1:], scale)
    with pytest.raises(ValueError, match=r"bias must have shape \(24,\), got \(23,\)"):
        int8_linear(x, weight, scale, bias[1:])
