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


def a_source(batch, full, tokens, seed=0):
    """Positions that show a token or zeros; one token is shown by none."""
    source = torch.randint(-1, tokens, (batch, full), generator=torch.Generator().manual_seed(seed))
    return source.where(source != tokens // 2, -1).int()


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("full", "length", "channels", "width"),
    [(1, 1, 5, 4), (63, 30, 24, 4), (101, 61, 130, 4), (197, 101, 130, 3)],
)
def test_causal_conv1d_of_shown_tokens_matches(full, length, channels, width, reverse, variant):
    with native.use(variant):
        inputs = conv_inputs(2, length, channels, taps=(width,))
        assert_matches(causal_conv1d, inputs, reverse=reverse, source=a_source(2, full, length))


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("taps", [(3, 3), (7, 7), (5, 9)])
@pytest.mark.parametrize(("grid", "length", "channels"), [((1, 1), 1, 5), ((3, 10), 11, 24), ((14, 14), 196, 17)])
def test_depthwise_conv2d_of_shown_tokens_matches(grid, length, channels, taps, variant):
    with native.use(variant):
        source = a_source(2, grid[0] * grid[1], length).unflatten(1, grid)
        assert_matches(depthwise_conv2d, conv_inputs(2, length, channels, taps=taps), source=source)


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize("reverse", [False, True])
def test_tokens_that_are_shown_once_among_zeros_match(reverse, variant):
    source = torch.full((2, 63), -1, dtype=torch.int32)
    for image in (0, 1):
        positions = torch.randperm(63, generator=torch.Generator().manual_seed(image))[:30].sort().values
        source[image, positions] = torch.arange(30, dtype=torch.int32)
    with native.use(variant):
        assert_matches(causal_conv1d, conv_inputs(2, 30, 24, taps=(4,)), reverse=reverse, source=source)


@needs_native
def test_a_source_that_shows_every_token_in_its_place_changes_nothing():
    inputs = conv_inputs(2, 12, 20, taps=(4,))
    source = torch.arange(12, dtype=torch.int32).expand(2, -1)
    assert torch.equal(causal_conv1d(**inputs, source=source), causal_conv1d(**inputs))


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (torch.zeros(2, 12), TypeError, "must be int32, got torch.float32"),
        (torch.zeros(3, 12, dtype=torch.int32), ValueError, r"source must have shape \(2, L\), got \(3, 12\)"),
        (torch.zeros(2, 3, 4, dtype=torch.int32), ValueError, r"got \(2, 3, 4\)"),
        (torch.full((2, 12), 7, dtype=torch.int32), IndexError, "source must be -1 ... 6, got 7"),
        (torch.full((2, 12), -2, dtype=torch.int32), IndexError, "got -2"),
    ],
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_bad_sources_are_refused(source, error, says, backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    with pytest.raises(error, match=says):
        causal_conv1d(**conv_inputs(2, 7, 6, taps=(4,)), source=source, backend=backend)


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
    grid, causal = torch.ops.skimba.depthwise_conv2d.default, torch.ops.skimba.causal_conv1d.default
    x, weight, bias = (t.detach().clone().requires_grad_() for t in conv_inputs(2, 4, 5, 6, taps=(3, 3)).values())
    torch.library.opcheck(grid, (x, weight, bias, None))
    tokens = x.detach()[:, :, :2].flatten(1, 2).requires_grad_()
    source = torch.randint(-1, tokens.shape[1], (2, 4, 5), dtype=torch.int32)
    torch.library.opcheck(grid, (tokens, weight, bias, source))
    row = weight.detach()[:, 0].clone().requires_grad_()
    for reverse in (False, True):
        torch.library.opcheck(causal, (tokens, row, bias, None, reverse))
        torch.library.opcheck(causal, (tokens, row, bias, source.flatten(1), reverse))


def test_bad_input_says_what_is_allowed():
    inputs = conv_inputs(2, 9, 6, taps=(4,))
    with pytest.raises(ValueError, match=r"weight must have shape \(6, k\), got \(5, 4\)"):
        causal_conv1d(inputs["x"], inputs["weight"][:5], inputs["bias"])
    with pytest.raises(ValueError, match="odd kh and kw"):
        depthwise_conv2d(torch.zeros(1, 3, 3, 2), torch.zeros(2, 4, 4), torch.zeros(2))
    with pytest.raises(TypeError, match="floating dtype"):
        causal_conv1d(inputs["x"].long(), inputs["weight"], inputs["bias"])
    with pytest.raises(
        ValueError, match=r"x must be \(b h w e\) without a source and \(b l e\) with one, got \(2, 9, 6\)"
    ):
        depthwise_conv2d(inputs["x"], torch.zeros(6, 3, 3), inputs["bias"])
    for name in ("x", "weight", "bias"):
        with pytest.raises(TypeError, match=f"{name} must be a Tensor, got None"):
            causal_conv1d(**{**inputs, name: None})


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_batch_gives_an_empty_result(backend, dtype):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    inputs = {name: x.requires_grad_() for name, x in conv_inputs(0, 9, 6, taps=(4,)).items()}
    inputs["x"] = inputs["x"].to(dtype)
    for source in (None, torch.zeros(0, 20, dtype=torch.int32)):
        y = causal_conv1d(**inputs, source=source, backend=backend)
        assert y.shape == (0, 9, 6)
        assert torch.equal(torch.autograd.grad(y.sum(), inputs["weight"])[0], torch.zeros(6, 4))
    grid = conv_inputs(0, 3, 4, 6, taps=(3, 3))
    assert depthwise_conv2d(**grid, backend=backend).shape == (0, 3, 4, 6)
    tokens, source = grid["x"][:, 0], torch.zeros(0, 3, 4, dtype=torch.int32)
    assert depthwise_conv2d(tokens, grid["weight"], grid["bias"], source=source, backend=backend).shape == (0, 4, 6)
