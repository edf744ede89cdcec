"""Back to the full grid: identities that every way to restore keeps."""

import pytest
import torch

from skimba.tokens import HOLD, NONE, Layout, Tokens
from skimba.tokens.restore import RESTORE, start_restore

GRID = (3, 4)


def tokens_of(extra=None, batch=2, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    length = 12 + (extra is not None)
    x, residual = (torch.randn(batch, length, width, generator=generator) for _ in range(2))
    return Tokens(x, Layout(GRID, () if extra is None else (extra,), device=torch.device("cpu")), residual)


def halved(tokens, merge, seed=1):
    """Every image keeps 6 of its 12 image tokens, not the same ones, and its class token."""
    generator = torch.Generator().manual_seed(seed)
    batch, length = tokens.x.shape[:2]
    score = torch.rand(batch, length, generator=generator)
    score = score.masked_fill(tokens.is_extra, 2.0)
    kept = score.argsort(1, descending=True)[:, : length - 6].sort(1).values
    heir = torch.randint(kept.shape[1], (batch, length), generator=generator)
    heir = heir.scatter(1, kept, torch.arange(kept.shape[1]).expand_as(kept))
    return (tokens.merge if merge else tokens.keep)(kept, heir, HOLD)


def changed(tokens, amount):
    return Tokens(tokens.x + amount, tokens.layout, tokens.residual)


def image_part(x, extra):
    return x if extra is None else torch.cat([x[:, :extra], x[:, extra + 1 :]], 1)


@pytest.mark.parametrize("extra", [None, 6])
@pytest.mark.parametrize("way", RESTORE)
def test_without_pruning_every_way_shows_the_stream(way, extra):
    tokens = tokens_of(extra)
    shown = start_restore(way).show(tokens).full()
    assert torch.equal(shown, image_part(tokens.stream, extra))


@pytest.mark.parametrize("extra", [None, 6])
@pytest.mark.parametrize("merge", [False, True])
def test_owner_shows_at_every_position_its_owner(merge, extra):
    tokens = halved(tokens_of(extra), merge)
    shown = start_restore("owner").show(tokens).full()
    assert torch.equal(shown, tokens.scatter().flatten(1, 2))


@pytest.mark.parametrize("extra", [None, 6])
def test_last_keeps_a_removed_position_and_follows_a_present_one(extra):
    before = tokens_of(extra)
    after = halved(before, merge=False)
    now = changed(after, 3.0)
    shown = start_restore("last").reduced(before, after).show(now).full()
    present = image_part(torch.zeros(before.x.shape[:2]).scatter(1, after.position, 1.0), extra).bool()
    expected = torch.where(present[..., None], image_part(before.stream + 3, extra), image_part(before.stream, extra))
    torch.testing.assert_close(shown, expected)


def test_zeros_shows_nothing_at_a_removed_position():
    before = tokens_of()
    after = halved(before, merge=False)
    present = torch.zeros(before.x.shape[:2]).scatter(1, after.position, 1.0)
    shown = start_restore("zeros").show(after).full()
    torch.testing.assert_close(shown, before.stream * present[..., None])


@pytest.mark.parametrize("merge", [False, True])
def test_last_plus_change_keeps_the_detail_and_adds_the_owners_change(merge):
    before = tokens_of(6)
    after = halved(before, merge)
    restore = start_restore("last_plus_change").reduced(before, after)
    torch.testing.assert_close(restore.show(after).full(), image_part(before.stream, 6))  # nothing has changed yet
    amount = torch.randn(after.x.shape, generator=torch.Generator().manual_seed(3))
    owners = torch.gather(amount, 1, after.owner[..., None].expand(-1, -1, 5))
    shown = restore.show(changed(after, amount)).full()
    torch.testing.assert_close(shown, image_part(before.stream + owners, 6))


@pytest.mark.parametrize("way", RESTORE)
def test_after_two_reductions_without_a_change_details_survive(way):
    """`last` and `last_plus_change`, hence `auto`, still show what every position was; the others lose it."""
    first = tokens_of()
    second = halved(first, merge=False)
    kept = torch.arange(3).expand(2, -1)
    third = second.keep(kept, torch.tensor([0, 1, 2, 0, 1, 2]).expand(2, -1), HOLD)
    shown = start_restore(way).reduced(first, second).reduced(second, third).show(third).full()
    same = torch.isclose(shown, first.stream).all()
    assert bool(same) == (way not in ("zeros", "owner"))


@pytest.mark.parametrize("way", RESTORE)
def test_rows_of_the_memory_are_the_rows_of_the_batch(way):
    before = tokens_of()
    after = halved(before, True)
    restore = start_restore(way).reduced(before, after)
    rows = torch.tensor([1])
    alone = restore.images(rows).show(after.images(rows)).full()
    assert torch.equal(alone, restore.show(after).full()[rows])


@pytest.mark.parametrize("way", ["owner", "last_plus_change"])
def test_a_way_that_needs_owners_says_so(way):
    before = tokens_of()
    kept = torch.arange(6).expand(2, -1)
    after = before.keep(kept, None, NONE)
    with pytest.raises(ValueError, match=f"restore '{way}' needs positions with owners"):
        start_restore(way).reduced(before, after).show(after)


@pytest.mark.parametrize(("owned", "same_as"), [(True, "last_plus_change"), (False, "last")])
def test_auto_follows_the_owner_where_there_is_one(owned, same_as):
    before = tokens_of()
    kept = torch.arange(6).expand(2, -1)
    owner = torch.tensor([0, 1, 2, 3, 4, 5] * 2).expand(2, -1) if owned else None
    after = before.keep(kept, owner, HOLD if owned else NONE)
    now = changed(after, 3.0)
    auto, other = (start_restore(way).reduced(before, after).show(now).full() for way in ("auto", same_as))
    assert torch.equal(auto, other)
    assert not torch.equal(auto, start_restore("zeros").reduced(before, after).show(now).full())


def test_an_unknown_way_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown restore 'best'; known: auto, zeros, owner, last, last_plus_change"):
        start_restore("best")


def test_a_function_stands_for_itself():
    assert type(start_restore(RESTORE["last"])) is RESTORE["last"]
