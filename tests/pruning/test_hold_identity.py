"""Where a token stands for a run of tokens that are equal, hold changes nothing in the whole model, and first order does."""

from itertools import pairwise

import pytest
import torch

import skimba
from skimba.pruning import Method
from skimba.tokens import HOLD, HOLD_FIRST_ORDER
from tests.conftest import TINY, randomise

RUNS = (1, 3, 2, 7, 1, 10, 4, 5, 1, 2, 9, 3)  # cells of the grid of 6 x 8 that show the same


def two_blocks(family):
    """A model whose second block gets runs of equal tokens, of which each token's x, Δ, B and C depend on itself alone."""
    torch.manual_seed(0)
    model = randomise(TINY[family](depth=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "conv1d" in name and name.endswith("weight"):
                parameter[..., :-1] = 0  # the convolution sees the token alone
            if name in ("pos_embed", "layers.0.mixer.out_proj.weight"):
                parameter.zero_()
            if "dt_proj" in name and name.endswith("bias"):
                parameter += 3  # steps for which the first order is far off
    return model.double()


def pictures():
    cell = torch.arange(len(RUNS)).repeat_interleave(torch.tensor(RUNS)).reshape(6, 8)
    shades = torch.randn(2, 3, len(RUNS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return shades[:, :, cell].repeat_interleave(4, 2).repeat_interleave(4, 3)


def merge_runs(tokens, stage):
    """The first of each run stands for it; an extra token ends a run."""
    x = tokens.stream[0]
    extra = tokens.is_extra[0].tolist()
    starts = [True, *(extra[a] or extra[b] or bool((x[a] != x[b]).any()) for a, b in pairwise(range(len(x))))]
    heir = torch.tensor(starts).long().cumsum(0) - 1
    kept = torch.tensor(starts).nonzero()[:, 0]
    batch = len(tokens.x)
    return tokens.merge(kept.expand(batch, -1), heir.expand(batch, -1), stage.alignment)


@pytest.mark.parametrize("family", ["vim", "video_mamba", "mamba_reg"])
def test_the_logits_are_those_of_the_dense_model(family):
    model, images = two_blocks(family), pictures()
    with torch.no_grad():
        dense = model(images)
        exact, first = (
            skimba.prune(model, Method(merge_runs, align), {1: 0.5})(images) for align in (HOLD, HOLD_FIRST_ORDER)
        )
    torch.testing.assert_close(exact, dense, rtol=0, atol=1e-6)
    assert (first - dense).abs().max() > 1e-3
