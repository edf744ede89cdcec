"""Which tokens are compared, where there are too many to compare all with all."""

from dataclasses import replace

import pytest
import torch

import skimba
from skimba import METHODS
from skimba.pruning import LIKENESS, Pairs, Stage, partners
from skimba.tokens import HOLD, Layout, Tokens
from tests.conftest import tiny_plain_mamba

ALL, NEAR = Pairs("snake", "cosine"), Pairs("snake", "cosine", partners="near")


def on_a_grid(height, width, channels=8):
    """Tokens that are the more alike the nearer they stand, along a row more than along a column."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angle = torch.stack([0.31 * row, 0.23 * column, 0.05 * row, 0.03 * column], -1).flatten(0, 1)[None]
    x = torch.cat([angle.cos(), angle.sin()], -1)
    x = x + 1e-3 * torch.randn(1, height * width, channels, generator=torch.Generator().manual_seed(0))
    return Tokens(x, Layout((height, width), device=x.device))


def near_places(tokens):
    sources, targets = NEAR.sides(tokens)
    return sources, targets, partners.near(tokens, sources, targets)


@pytest.mark.parametrize("width", [6, 7])
def test_the_four_neighbours_on_a_whole_grid_are_near(width):
    sources, _, found = near_places(on_a_grid(5, width))
    for source, others in zip(sources[0].tolist(), found[0].tolist(), strict=True):
        row, column = divmod(source, width)
        around = [(row + i, column + j) for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        inside = {r * width + c for r, c in around if 0 <= r < 5 and 0 <= c < width}
        assert inside <= set(others)
        away = [abs(other // width - row) + abs(other % width - column) for other in others]
        assert max(away) <= 2 or set(others) - inside <= {others[0], others[1]}  # those beside it on the walk


def test_where_the_likest_are_neighbours_the_result_is_that_of_all():
    for count in (40, 24):
        stage, tokens = Stage(count, HOLD), on_a_grid(6, 8)
        expected, got = ALL(tokens, stage), NEAR(tokens, stage)
        assert torch.equal(got.owner, expected.owner)
        assert torch.equal(got.x, expected.x)


def test_near_partners_may_be_merged_into_after_every_reduction():
    tokens = on_a_grid(9, 7)
    for count in (40, 31, 18, 9, 3, 2):
        tokens = NEAR(tokens, Stage(count, HOLD))
        assert tokens.layout.image_count == count
        assert sorted(tokens.owner.unique().tolist()) == list(range(count))
        sources, targets, found = near_places(tokens)
        assert found.shape == (1, sources.shape[1], 2 + 12)
        assert set(found.unique().tolist()) <= set(targets.unique().tolist())


def test_few_tokens_are_all_compared_and_many_are_not(monkeypatch):
    hold, tokens = METHODS["hold"].part, on_a_grid(6, 8)
    tokens = replace(tokens, x=torch.randn(1, 48, 8, generator=torch.Generator().manual_seed(0)))
    stage = Stage(30, HOLD)
    whole, close = (replace(hold, partners=name)(tokens, stage) for name in ("all", "near"))
    assert not torch.equal(whole.owner, close.owner)
    assert torch.equal(hold(tokens, stage).owner, whole.owner)
    monkeypatch.setattr(partners, "ALL_UP_TO", 47)
    assert torch.equal(hold(tokens, stage).owner, close.owner)


@pytest.mark.parametrize("likeness", LIKENESS)
def test_a_likeness_of_own_partners_is_that_of_all(model, images, likeness):
    """On reduced tokens with owners; Vim's have a class token between them."""
    seen = []

    def keep(tokens, sources, targets):
        found = partners.near(tokens, sources, targets)
        every = LIKENESS[likeness](tokens, sources, targets)
        own = LIKENESS[likeness](tokens, sources, found)
        place = (found[:, :, :, None] == targets[:, None, None]).byte().argmax(-1)
        torch.testing.assert_close(own, every.gather(2, place), rtol=1e-5, atol=1e-5)
        seen.append(len(found))
        return found

    method = replace(METHODS["hold"], reduction=Pairs("snake", likeness, partners=keep))
    with torch.no_grad():
        assert skimba.prune(model, method, {1: 0.6, 2: 0.6})(images).isfinite().all()
    assert len(seen) == 2


def test_matching_grows_with_the_tokens_and_not_with_their_square():
    def matching(side):
        pruned = skimba.prune(tiny_plain_mamba(img_size=side), "hold", {1: 0.6})
        return skimba.count_flops(pruned, convention="exact").by_module["reducer"]

    assert matching(256) == pytest.approx(4 * matching(132), rel=0.1)
    assert matching(128) > matching(256)  # 1,024 tokens: all with all


def test_unknown_partners_are_refused():
    with pytest.raises(ValueError, match="unknown partners 'far'; known: all, near, near_of_many, or a function"):
        Pairs(partners="far")
