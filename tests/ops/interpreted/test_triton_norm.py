import pytest
import torch

from skimba.ops import add_rms_norm
from tests.ops.scan_inputs import double, relative_error
from tests.ops.test_add_rms_norm import norm_inputs, with_gradients


@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize(("length", "width"), [(1, 3), (3, 5)])
def test_matches_in_values_and_gradients(length, width, with_residual):
    inputs = norm_inputs(length, width, with_residual)
    for parts in ((True, True), (True, False), (False, True)):
        expected = with_gradients(double(inputs), parts, backend="reference")
        got = with_gradients(inputs, parts, backend="triton")
        for a, b in zip(got, expected, strict=True):
            assert relative_error(a, b) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize(("length", "width"), [(63, 64), (197, 130), (600, 20)])
def test_matches_at_every_size(length, width, with_residual):
    test_matches_in_values_and_gradients(length, width, with_residual)


def test_bfloat16_is_the_float32_norm_of_the_rounded_input():
    x, residual, weight = norm_inputs(3, 40).values()
    y, total = add_rms_norm(x.bfloat16(), residual, weight, backend="triton")
    expected, sum_ = add_rms_norm(x.bfloat16().float(), residual, weight, backend="triton")
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=0)  # the interpreter cuts off
    assert torch.equal(total, sum_)
