import pytest
import torch

from skimba.ops import native

pytestmark = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
INF, NAN = float("inf"), float("nan")


@pytest.fixture(params=native.variants(), autouse=True)
def variant(request):
    with native.use(request.param):
        yield request.param


def relative(got, expected, smallest=2**-149):
    """Error against float64; below the normal range the spacing of the denormals is the unit."""
    slack = expected.abs() * 2e-7 + (expected.abs() < 2**-126) * smallest
    return ((got.double() - expected).abs() / slack).max()


@pytest.mark.parametrize(("name", "low", "high"), [("exp2", -152, 127.99), ("exp", -105, 88.7)])
def test_exponentials_are_accurate_to_2e_7_over_the_whole_range(name, low, high):
    x = torch.cat([torch.linspace(low, high, 1_000_000), torch.linspace(-2, 1, 200_000), torch.arange(-149.0, 1.0)])
    x = x[x >= low]
    assert relative(native.evaluate(name, x), getattr(torch, name)(x.double())) <= 1


@pytest.mark.parametrize("name", ["exp2", "exp"])
def test_exponentials_of_special_values(name):
    got = native.evaluate(name, torch.tensor([-INF, -1e30, -0.0, 0.0, INF, 1e30, NAN]))
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, 1.0, 1.0, INF, INF, NAN]), rtol=0, atol=0, equal_nan=True)


def test_softplus_is_accurate_where_it_is_small_and_where_it_is_large():
    x = torch.linspace(-80, 40, 500_000)
    expected = torch.where(x > 20, x.double(), torch.log1p(torch.exp(x.double())))
    assert ((native.evaluate("softplus", x).double() - expected).abs() / expected).max() <= 4e-7
    special = native.evaluate("softplus", torch.tensor([-INF, INF, NAN]))
    torch.testing.assert_close(special, torch.tensor([0.0, INF, NAN]), equal_nan=True)


def test_silu_is_accurate():
    x = torch.linspace(-60, 60, 500_000)
    expected = torch.nn.functional.silu(x.double())
    assert ((native.evaluate("silu", x).double() - expected).abs() / expected.abs().clamp_min(1e-30)).max() <= 5e-7


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="cannot run the variant"), native.use("sse9"):
        pass
