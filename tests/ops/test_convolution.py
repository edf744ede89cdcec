import pytest
import torch

from skimba.ops import causal_conv1d, depthwise_conv2d, native
from tests.ops.scan_inputs import double, relative_error, with_gradients

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")


def conv_inputs(*sizes: int, taps: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """x is the first half of a wider tensor, as in the models."""
    g = torch.Generator().manual_seed(0)
    channels = sizes[-1]
    x = torch.randn(*sizes[:-1], 2 * channels, generator=g)[..., :channels]
    weight = torch.randn(channels, *taps, generator=g)
    return {"x": x, "weight": weight, "bias": torch.randn(channels, generator=g)}


def assert_matches(function, inputs, **options):
    expected = with_gradients(function, double(inputs), backend="reference", **options)
    got = with_gradients(function, inputs, backend="cpu", **options)
    for name, x in expected.items():
        assert relative_error(got[name], x) <= (1e-5 if name == "y" else 1e-4), name


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 7, 9])
@pytest.mark.parametrize(("length", "channels"), [(1, 5), (7, 1), (63, 24), (197, 130)])
def test_causal_conv1d_matches(length, channels, width, reverse, variant):
    with native.use(variant):
        assert_matches(causal_conv1d, conv_inputs(2, length, channels, taps=(width,)), reverse=reverse)


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (7, 7), (5, 9), (9, 1)])
@pytest.mark.parametrize("sizes", [(2, 1, 1, 5), (1, 3, 10, 24), (2, 14, 14, 17)])
def test_depthwise_conv2d_matches(sizes, taps, variant):
    with native.use(variant):
        assert_matches(depthwise_conv2d, conv_inputs(*sizes, taps=taps))


@needs_native
def test_bfloat16_is_the_float32_convolution_of_the_rounded_input():
    inputs = conv_inputs(2, 6, 9, 20, taps=(7, 7))
    rounded = inputs["x"].bfloat16()
    got = depthwise_conv2d(rounded, inputs["weight"], inputs["bias"], backend="cpu")
    expected = depthwise_conv2d(rounded.float(), inputs["weight"], inputs["bias"], backend="cpu")
    assert torch.equal(got, expected.bfloat16())


@needs_native
def test_result_does_not_depend_on_the_number_of_threads():
    inputs = conv_inputs(3, 14, 14, 50, taps=(7, 7))
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(with_gradients(depthwise_conv2d, inputs, backend="cpu"))
    for other in results[1:]:
        assert all(torch.equal(results[0][name], x) for name, x in other.items())


@needs_native
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck(monkeypatch):
    monkeypatch.undo()
    x, weight, bias = (t.detach().clone().requires_grad_() for t in conv_inputs(2, 4, 5, 6, taps=(3, 3)).values())
    torch.library.opcheck(torch.ops.skimba.depthwise_conv.default, (x, weight, bias, 1, 1))


def test_bad_input_says_what_is_allowed():
    inputs = conv_inputs(2, 9, 6, taps=(4,))
    with pytest.raises(ValueError, match=r"weight must have shape \(6, 4\), got \(5, 4\)"):
        causal_conv1d(inputs["x"], inputs["weight"][:5], inputs["bias"])
    with pytest.raises(ValueError, match="odd kh and kw"):
        depthwise_conv2d(torch.zeros(1, 3, 3, 2), torch.zeros(2, 4, 4), torch.zeros(2))
    with pytest.raises(TypeError, match="floating dtype"):
        causal_conv1d(inputs["x"].long(), inputs["weight"], inputs["bias"])
