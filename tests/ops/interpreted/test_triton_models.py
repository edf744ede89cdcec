"""Whole models on Triton's kernels."""

import pytest
import torch

import skimba
from skimba.ops import default_backend
from tests.conftest import TINY, randomise


def assert_matches(model, images):
    with torch.no_grad():
        with default_backend("reference"):
            expected = model(images)
        with default_backend("triton"):
            got = model(images)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert torch.equal(got.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("family", ["vim", pytest.param("plain_mamba", marks=pytest.mark.slow)])
def test_a_pruned_model_equals_itself_on_the_reference(family):
    dense = randomise(TINY[family](img_size=(12, 16), depth=2, embed_dim=8))
    model = skimba.prune(dense, "hold", {1: 0.5})
    assert_matches(model, torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(0)))


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, "hold", "top", "bipartite"])
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_micro_models_equal_themselves_on_the_reference(name, method):
    torch.manual_seed(0)
    model = randomise(skimba.create_model(name))
    if method is not None:
        model = skimba.prune(model, method)
    assert_matches(model, torch.randn(2, model.in_chans, *model.img_size))
