import pytest
import torch

from skimba.ops import causal_conv1d, depthwise_conv2d
from tests.ops.scan_inputs import double, relative_error, with_gradients
from tests.ops.test_convolution import a_source, conv_inputs


def assert_matches(function, inputs, **options):
    expected = with_gradients(function, double(inputs), backend="reference", **options)
    got = with_gradients(function, inputs, backend="triton", **options)
    for name, x in expected.items():
        assert relative_error(got[name], x) <= (1e-5 if name == "y" else 1e-4), name


@pytest.mark.parametrize("reverse", [False, True])
def test_causal_conv1d_matches(reverse):
    assert_matches(causal_conv1d, conv_inputs(2, 19, 5, taps=(4,)), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_causal_conv1d_of_shown_tokens_matches(reverse):
    inputs = conv_inputs(2, 7, 5, taps=(4,))
    assert_matches(causal_conv1d, inputs, reverse=reverse, source=a_source(2, 19, 7))


def test_depthwise_conv2d_matches():
    assert_matches(depthwise_conv2d, conv_inputs(1, 4, 5, 6, taps=(3, 5)))


def test_depthwise_conv2d_of_shown_tokens_matches():
    source = a_source(1, 20, 11).unflatten(1, (4, 5))
    assert_matches(depthwise_conv2d, conv_inputs(1, 11, 6, taps=(3, 3)), source=source)


def test_bfloat16_is_the_float32_convolution_of_the_rounded_input():
    inputs = conv_inputs(1, 9, 5, taps=(4,))
    rounded = inputs.pop("x").bfloat16()
    got = causal_conv1d(rounded, **inputs, backend="triton")
    expected = causal_conv1d(rounded.float(), **inputs, backend="triton")
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=2**-7, atol=0)  # the interpreter cuts off


def test_an_empty_batch_gives_an_empty_result():
    inputs = conv_inputs(0, 9, 6, taps=(4,))
    for source in (None, torch.zeros(0, 20, dtype=torch.int32)):
        found = with_gradients(causal_conv1d, inputs, source=source, backend="triton")
        assert found["y"].shape == (0, 9, 6)
        assert torch.equal(found["grad_weight"], torch.zeros(6, 4))


def test_a_source_that_names_no_token_gives_nan_and_reads_nothing_outside():
    source = torch.tensor([[0, 1, 2, 9, 3, 4, 5, 6, 7]], dtype=torch.int32)
    y = causal_conv1d(**conv_inputs(1, 8, 5, taps=(2,)), source=source, backend="triton")
    assert y[:, 3].isnan().all()
    assert y[:, [0, 1, 2, 4, 5, 6, 7]].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 7, 9])
@pytest.mark.parametrize(("length", "channels"), [(1, 5), (7, 1), (63, 24), (197, 130)])
def test_causal_conv1d_matches_everywhere(length, channels, width, reverse):
    assert_matches(causal_conv1d, conv_inputs(2, length, channels, taps=(width,)), reverse=reverse)


@pytest.mark.slow
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (7, 7), (5, 9), (9, 1)])
@pytest.mark.parametrize("sizes", [(2, 1, 1, 5), (1, 3, 10, 24), (2, 14, 14, 17)])
def test_depthwise_conv2d_matches_everywhere(sizes, taps):
    assert_matches(depthwise_conv2d, conv_inputs(*sizes, taps=taps))


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("full", "length", "channels", "width"), [(1, 1, 5, 4), (63, 30, 24, 4), (197, 101, 130, 3)])
def test_causal_conv1d_of_shown_tokens_matches_everywhere(full, length, channels, width, reverse):
    inputs = conv_inputs(2, length, channels, taps=(width,))
    assert_matches(causal_conv1d, inputs, reverse=reverse, source=a_source(2, full, length))


@pytest.mark.slow
@pytest.mark.parametrize("taps", [(3, 3), (7, 7), (5, 9)])
@pytest.mark.parametrize(("grid", "length", "channels"), [((1, 1), 1, 5), ((3, 10), 11, 24), ((14, 14), 196, 17)])
def test_depthwise_conv2d_of_shown_tokens_matches_everywhere(grid, length, channels, taps):
    source = a_source(2, grid[0] * grid[1], length).unflatten(1, grid)
    assert_matches(depthwise_conv2d, conv_inputs(2, length, channels, taps=taps), source=source)
