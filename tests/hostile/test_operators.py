import pytest

from skimba.ops import native
from tests.hostile.operator_calls import run

pytestmark = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")
SHORT, LONG = 150, 100_000


@pytest.mark.parametrize("first", range(0, SHORT, 50))
def test_random_calls_are_refused_or_equal_to_the_reference(first):
    outcomes = [run(seed) for seed in range(first, first + 50)]
    assert {"refused", "equal"} == set(outcomes)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_random_calls_are_refused_or_equal_to_the_reference():
    for seed in range(SHORT, SHORT + LONG):
        run(seed, compare=seed % 10 == 0)
