"""What acts in training only, and what tools do to the layers of a model."""

import pytest
import torch

import skimba
from tests.conftest import same_kind


def test_drop_path_drops_the_mixers_own_output_in_the_last_block_too(model, images):
    """Rates rise from 0 in the first block to 1 in the last: there nothing of the mixer is left."""
    certain = same_kind(model, depth=3, drop_path_rate=1.0).train()
    tokens = certain.embed(images)
    first = certain.layers[0](tokens)
    second = certain.layers[1](first)
    last = certain.layers[2](second)
    assert not torch.equal(first.stream, tokens.stream)
    if last.residual is None:
        torch.testing.assert_close(last.stream, second.stream)
    else:
        assert last.x.eq(0).all()


@pytest.mark.filterwarnings("ignore:.*quantization.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantiz.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*reduce_range.*:UserWarning")
@pytest.mark.parametrize("preset", [None, "hold"])
def test_dynamic_int8_runs_and_stays_near(model, images, preset):
    pruned = model if preset is None else skimba.prune(model, preset, {2: 0.5})
    int8 = torch.ao.quantization.quantize_dynamic(pruned, {torch.nn.Linear}, torch.qint8)
    assert not isinstance(int8.layers[0].mixer.in_proj, torch.nn.Linear), "the projections are quantised"
    with torch.no_grad():
        got, expected = int8(images), pruned(images)
    assert ((got - expected).norm() / expected.norm()).item() < 0.15
