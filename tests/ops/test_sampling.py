"""Reading maps at any places: the kernel against the reference; the reference against its formula is in tests/layers."""

import pytest
import torch

from skimba.ops import default_backend, native, observe, sample_maps

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
GRIDS = [(3, 5), (1, 1), (4, 2)]
CELLS = 15 + 1 + 8


def inputs(batch=2, queries=7, heads=3, channels=8, points=4, reach=0.7, dtype=torch.float32):
    """Places in and around the maps."""
    g = torch.Generator().manual_seed(0)
    shape = (batch, queries, heads, len(GRIDS), points)
    return {
        "value": torch.randn(batch, CELLS, heads, channels, generator=g).to(dtype),
        "locations": (0.5 + reach * (2 * torch.rand(*shape, 2, generator=g) - 1)).to(dtype),
        "weights": torch.randn(*shape, generator=g).to(dtype),
    }


def read(given, backend="auto"):
    return sample_maps(given["value"], GRIDS, given["locations"], given["weights"], backend=backend)


def with_gradients(given, backend):
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    y = read(leaves, backend)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), list(leaves.values()))]


@needs_native
@pytest.mark.parametrize("variant", native.variants())
@pytest.mark.parametrize(("channels", "points"), [(1, 1), (8, 4), (17, 3), (32, 4), (56, 2)])
@pytest.mark.parametrize("reach", [0.4, 0.9])
def test_values_and_gradients_match(variant, channels, points, reach):
    given = inputs(channels=channels, points=points, reach=reach)
    expected = with_gradients({name: x.double() for name, x in given.items()}, "reference")
    with native.use(variant):
        got = with_gradients(given, "cpu")
    for found, wanted, allowed in zip(got, expected, (1e-5, 1e-4, 1e-4, 1e-4), strict=True):
        assert (found - wanted).abs().max() <= allowed * wanted.abs().max()


@needs_native
@pytest.mark.parametrize("variant", native.variants())
def test_bfloat16_is_rounded_once(variant):
    given = inputs(channels=20)
    given["value"] = given["value"].bfloat16()
    expected = read({**given, "value": given["value"].float()}, "reference")
    with native.use(variant):
        got = read(given, "cpu")
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=2**-8, atol=1e-5)


@needs_native
def test_threads_do_not_change_the_result():
    given = inputs(queries=61)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(read(given, "cpu"))
    assert torch.equal(*found)


@needs_native
def test_strided_inputs_are_read_where_they_stand():
    given = inputs()
    turned = {name: x.transpose(0, -1).contiguous().transpose(0, -1) for name, x in given.items()}
    assert torch.equal(read(turned, "cpu"), read(given, "cpu"))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_places_outside_read_zero_and_what_is_not_finite_stays_so(backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip("no native kernels")
    given = inputs()
    for outside in ([3.0, 0.5], [0.5, -1e30]):
        given["locations"][:] = torch.tensor(outside)
        assert not read(given, backend).any()
    for wrong in (float("inf"), -float("inf"), float("nan")):
        given["locations"][0, 0] = wrong
        found = read(given, backend)
        assert found[0, 0].isnan().all()
        assert found[0, 1:].isfinite().all()


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_values(dtype, backend):
    got = read(inputs(dtype=dtype), backend)
    assert got.dtype == dtype
    assert got.shape == (2, 7, 24)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_an_empty_batch_reads_nothing(backend):
    found = with_gradients(inputs(batch=0), backend)
    assert [x.shape[0] for x in found] == [0] * 4
    assert found[0].shape[1:] == (7, 24)


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=needs_native)])
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck itself reads it
def test_opcheck(dtype, monkeypatch):
    monkeypatch.undo()
    tensors = [x.requires_grad_() for x in inputs(dtype=dtype).values()]
    sides = [side for grid in GRIDS for side in grid]
    torch.library.opcheck(torch.ops.skimba.sample_maps.default, (*tensors, sides))


def test_meta_tensors_give_shapes_and_listeners_are_called():
    seen = []
    with observe(lambda name, given, y: seen.append((name, tuple(y.shape)))):
        read({name: x.to("meta") for name, x in inputs().items()})
    assert seen == [("sample_maps", (2, 7, 24))]


def test_second_derivatives_are_refused():
    leaves = {name: x.requires_grad_() for name, x in inputs().items()}
    (slope,) = torch.autograd.grad(read(leaves).square().sum(), leaves["value"], create_graph=True)
    with pytest.raises(RuntimeError, match="sample_maps has no second derivative"):
        slope.sum().backward()


def test_inputs_that_do_not_fit_are_refused():
    given = inputs()
    value, locations, weights = given.values()
    for grids in ([(3, 5), (1, 1)], [(3, 5), (1, 1), (4, 3)], [(3, 5), (-1, -1), (4, 2)]):
        with pytest.raises(ValueError, match=r"grids must be height and width of 3 maps with 24 cells in all, got \["):
            sample_maps(value, grids, locations, weights)
    with pytest.raises(ValueError, match=r"locations must be \(b q heads maps points 2\), got \(2, 7, 3, 3, 4, 1\)"):
        sample_maps(value, GRIDS, locations[..., :1], weights)
    with pytest.raises(ValueError, match="weights must have shape"):
        sample_maps(value, GRIDS, locations, weights[:, :, :2])
    with pytest.raises(TypeError, match="value must have a floating dtype"):
        sample_maps(value.long(), GRIDS, locations, weights)


@needs_native
def test_the_compiled_module_refuses_grids_and_null_pointers():
    sample, floats = native._native.sample, torch.zeros(64)
    sizes, at = (1, 1, 4, 1, 4, 1, 1), floats.data_ptr()
    for grids in ([2, 3], [2], [], [-2, -2], [0, 4], [2**62, 4]):
        with pytest.raises(ValueError, match="grids must be height and width of maps that have all the cells"):
            sample(sizes, (False, 1), grids, at, at, at, at)
    for absent in range(4):
        with pytest.raises(ValueError, match="an operand is not given"):
            sample(sizes, (False, 1), [2, 2], *[0 if i == absent else at for i in range(4)])


@needs_native
def test_the_reference_is_chosen_for_a_whole_context():
    given = inputs(dtype=torch.float64)
    with default_backend("cpu"), pytest.raises(TypeError, match="needs float32 or bfloat16"):
        read(given)
