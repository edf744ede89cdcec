"""The reductions against loops, and against the faults of the released code of the paper."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import skimba
from skimba.insight import trace
from skimba.pruning import LIKENESS, SCORE, SELECTION, Drop, Hybrid, Merge, Method, Pairs, Stage
from skimba.pruning.likeness import local_window
from skimba.pruning.owners import DISTANCE_COST, OWNER
from skimba.tokens import Alignment, Layout, ScanRecord, Tokens, take
from tests.conftest import TINY, randomise

HOLD = Alignment("hold", "held")
CLASS = 6


def extras(class_position):
    return () if class_position is None else (class_position,)


def some_tokens(class_position=CLASS, image_tokens=12, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    length = image_tokens + (class_position is not None)
    x, residual = torch.randn(2, batch, length, 5, generator=generator)
    y = torch.randn(2, batch, length, 8, generator=generator)
    delta = torch.rand(2, batch, length, 8, generator=generator)
    record = ScanRecord(tuple(y), tuple(delta), (torch.zeros(8), torch.ones(8)))
    return Tokens(x, Layout((3, image_tokens // 3), extras(class_position)), residual, record)


def stage(count, alignment=HOLD):
    return Stage(count, alignment)


BIPARTITE, CHECKERBOARD = Pairs("sequence", "cosine"), Pairs("snake", "cosine")


def score_by_loop(name, record, image, token):
    total = 0.0
    for y, delta in zip(record.y, record.delta, strict=True):
        values = [float(v) for v in y[image, token]]
        steps = [float(v) for v in delta[image, token]]
        total += {
            "clip": sum(max(0.0, v) for v in values) / len(values),
            "no_clip": sum(values) / len(values),
            "l1": sum(abs(v) for v in values) / len(values),
            "l2": (sum(v * v for v in values) / len(values)) ** 0.5,
            "delta": sum(steps) / len(steps),
        }[name]
    return total


@pytest.mark.parametrize("name", ["clip", "no_clip", "l1", "l2", "delta"])
@pytest.mark.parametrize("class_position", [CLASS, None])
def test_the_most_important_image_tokens_stay(name, class_position):
    tokens = some_tokens(class_position)
    kept = Drop(name)(tokens, stage(4)).position
    for image in range(3):
        candidates = [t for t in range(tokens.x.shape[1]) if t != class_position]
        best = sorted(candidates, key=lambda t: -score_by_loop(name, tokens.scan, image, t))[:4]
        expected = sorted(best if class_position is None else [*best, class_position])
        assert kept[image].tolist() == expected


def test_the_class_token_stays_in_every_image_though_it_scores_least():
    tokens = some_tokens()
    for y in tokens.scan.y:
        y[:, CLASS] = -100
    assert (Drop()(tokens, stage(2)).position == CLASS).sum(1).tolist() == [1, 1, 1]


def test_the_class_token_keeps_its_place_where_only_tokens_before_it_go():
    tokens = some_tokens()
    for y in tokens.scan.y:
        y[:, :CLASS] -= 100
    reduced = Drop()(tokens, stage(8))
    assert reduced.extra_places.tolist() == [[2], [2], [2]]  # not the middle of nine
    assert torch.equal(reduced.x[:, 2], tokens.x[:, CLASS])


def test_the_backward_scans_record_is_in_sequence_order():
    """Told from the outside: what the backward scan returns for a token depends on the tokens after it only."""
    model = randomise(TINY["vim"](depth=1))
    images = torch.randn(1, 3, 24, 32)
    changed = images.clone()
    changed[..., -4:, -4:] += 1  # the last patch
    records = [model.layers[0](model.embed(x), record=True).scan for x in (images, changed)]
    forward, backward = [(a != b).any(-1)[0] for a, b in zip(records[0].y, records[1].y, strict=True)]
    assert forward.nonzero().flatten().tolist() == [48]
    assert backward[:40].any()


def test_plain_mambas_records_are_in_sequence_order():
    model = randomise(TINY["plain_mamba"](depth=1, dwconv_blocks=()))
    with torch.no_grad():
        tokens = model.embed(torch.randn(2, 3, 24, 32))
        block = model.layers[0]
        out, record = block.mamba(block.norm(tokens.x), tokens.layout, record=True)
        torch.testing.assert_close(block.mamba.out_proj(sum(record.y)), out)


def likeness(tokens, image, position, class_position, cost, other):
    """Cosine of two positions' tokens less ``cost`` for each step between them on the grid."""
    stream, width = tokens.stream[image], tokens.grid[1]
    cells = [p if class_position is None else p - (p > class_position) for p in (position, other)]
    steps = sum(abs(a - b) for a, b in zip(*(divmod(cell, width) for cell in cells), strict=True))
    return F.cosine_similarity(stream[other], stream[position], dim=0).item() - cost * steps


@pytest.mark.parametrize("owner", OWNER)
@pytest.mark.parametrize("class_position", [CLASS, None])
def test_owners_by_loop(owner, class_position):
    tokens = some_tokens(class_position)
    reduced = Drop(owner=owner)(tokens, stage(5))
    for image in range(3):
        kept = reduced.position[image].tolist()
        for position in range(tokens.x.shape[1]):
            if position in kept:
                expected = position
            else:
                heirs = [k for k in kept if k != class_position]
                if owner == "nearest":
                    expected = min(heirs, key=lambda k: (abs(k - position), k))
                else:
                    cost = DISTANCE_COST if owner == "similar_near" else 0.0
                    expected = max(heirs, key=partial(likeness, tokens, image, position, class_position, cost))
            assert kept[reduced.owner[image, position]] == expected


def test_merging_averages_both_streams_by_size():
    tokens = some_tokens()
    reduced = Merge(lambda t, count, seed: t.x[..., 0])(Merge()(tokens, stage(8)), stage(4))
    for image in range(3):
        for rank in range(5):
            members = reduced.owner[image] == rank
            torch.testing.assert_close(reduced.x[image, rank], tokens.x[image, members].mean(0))
            torch.testing.assert_close(reduced.residual[image, rank], tokens.residual[image, members].mean(0))


def bipartite_by_loop(stream, positions, class_position, pairs):
    """Merged pairs (gone, heir), by position."""
    image = [i for i, p in enumerate(positions) if p != class_position]
    found = []
    for i in image[::2]:
        cosines = {j: F.cosine_similarity(stream[i], stream[j], dim=0).item() for j in image[1::2]}
        best = max(cosines, key=cosines.get)
        found.append((cosines[best], positions[i], positions[best]))
    return {(gone, heir) for _, gone, heir in sorted(found, reverse=True)[:pairs]}


@pytest.mark.parametrize("class_position", [CLASS, None, 0, 12])
def test_bipartite_matching_by_loop(class_position):
    tokens = some_tokens(class_position)
    reduced = BIPARTITE(tokens, stage(8))
    again = BIPARTITE(reduced, stage(4))
    full = tokens.x.shape[1]
    for image in range(3):
        merged = bipartite_by_loop(tokens.stream[image], list(range(full)), class_position, 4)
        kept = reduced.position[image].tolist()
        assert {(p, kept[o]) for p, o in enumerate(reduced.owner[image].tolist()) if kept[o] != p} == merged
        second = bipartite_by_loop(reduced.stream[image], kept, class_position, 4)
        assert set(again.position[image].tolist()) == set(kept) - {gone for gone, _ in second}
        for rank, position in enumerate(again.position[image].tolist()):
            members = again.owner[image] == rank
            assert members[position]
            torch.testing.assert_close(again.x[image, rank], tokens.x[image, members].mean(0))


@pytest.mark.parametrize(("name", "cost"), [("ward", 0.0), ("ward_near", 1.0)])
def test_wards_criterion_by_loop(name, cost):
    tokens = BIPARTITE(some_tokens(), stage(8))
    a, b = torch.tensor([[0, 1]] * 3), torch.tensor([[2, 3, 8]] * 3)
    got = LIKENESS[name](tokens, a, b)
    sizes = [[(tokens.owner[image] == rank).sum().item() for rank in range(9)] for image in range(3)]
    assert max(map(max, sizes)) > 1
    for image, i, j in itertools.product(range(3), range(2), range(3)):
        one, other = a[image, i], b[image, j]
        s, t = sizes[image][one], sizes[image][other]
        cosine = F.cosine_similarity(tokens.stream[image, one], tokens.stream[image, other], dim=0)
        position = tokens.position[image]
        apart: float = (position[one] > CLASS).item() != (position[other] > CLASS).item()
        cells = [divmod(p - (p > CLASS), tokens.grid[1]) for p in (position[one].item(), position[other].item())]
        apart += cost * sum(abs(x - y) / side for x, y, side in zip(*cells, tokens.grid, strict=True))
        assert got[image, i, j].item() == pytest.approx(-(1 - cosine.item() + apart) * s * t / (s + t), abs=1e-6)


def test_local_likeness_prefers_the_same_window_of_the_grid():
    tokens = some_tokens_on((8, 8))
    window = local_window(tokens)
    assert window[0].reshape(8, 8)[3:5, 3:5].unique().numel() == 4
    image = torch.arange(64).expand(3, -1)
    got = LIKENESS["local"](tokens, image, image)
    same = window[:, :, None] == window[:, None]
    assert got[same].min() >= -1 - 1e-6
    assert got[~same].max() <= -1 + 1e-6


def some_tokens_on(grid):
    generator = torch.Generator().manual_seed(3)
    return Tokens(torch.randn(3, grid[0] * grid[1], 5, generator=generator), Layout(grid))


def test_the_class_token_is_in_no_local_window():
    window = local_window(some_tokens(class_position=6, image_tokens=12))
    assert (window == -1).nonzero()[:, 1].tolist() == [6, 6, 6]
    assert window[0].tolist() == [0] * 6 + [-1] + [0] * 6


@pytest.mark.parametrize("name", ["segments", "windows"])
def test_selections_by_loop(name):
    tokens = some_tokens_on((8, 8))
    image = torch.arange(64).expand(3, -1)
    score = torch.rand(3, 64, generator=torch.Generator().manual_seed(5))
    chosen = SELECTION[name](score, 24, tokens, image)
    groups = {
        "segments": [[t for t in range(64) if t * 24 // 64 == s] for s in range(24)],
        "windows": [[r * 8 + c for r in range(y, y + 4) for c in range(x, x + 4)] for y in (0, 4) for x in (0, 4)],
    }[name]
    for i in range(3):
        quota = 24 // len(groups)
        expected = [t for g in groups for t in sorted(g, key=lambda t, i=i: -score[i, t])[:quota]]
        assert sorted(chosen[i].tolist()) == sorted(expected)


def test_the_hybrid_reduction_by_loop():
    tokens = some_tokens()
    reduced = Hybrid()(tokens, stage(6, alignment=Alignment()))
    for image in range(3):
        kept = reduced.position[image].tolist()
        cosine = F.cosine_similarity(tokens.stream[image, :, None], tokens.stream[image, None], dim=-1)
        candidates = [k for k in kept if k != CLASS]
        heir = {g: max(candidates, key=lambda k, g=g: cosine[g, k]) for g in range(13) if g not in kept}
        by_likeness = sorted(heir, key=lambda g: cosine[g, heir[g]])
        merged = by_likeness[len(heir) // 2 :]
        for rank, k in enumerate(kept):
            both = [k, *(g for g in heir if heir[g] == k)]
            values = [k, *(g for g in merged if heir[g] == k)]
            torch.testing.assert_close(reduced.residual[image, rank], tokens.residual[image, both].mean(0))
            torch.testing.assert_close(reduced.x[image, rank], tokens.x[image, values].mean(0))


def test_disorderly_reductions_keep_the_same_tokens_in_another_order():
    tokens = some_tokens()
    plain = stage(8, alignment=Alignment())
    for disorderly, orderly in ((Drop(order="score"), Drop()), (replace(BIPARTITE, order="sides"), BIPARTITE)):
        mixed, sorted_ = disorderly(tokens, plain), orderly(tokens, plain)
        order = mixed.position.argsort(dim=1)
        assert not torch.equal(mixed.position, sorted_.position)
        assert torch.equal(take(mixed.position, order), sorted_.position)
        assert torch.equal(take(mixed.x, order), sorted_.x)
        assert torch.equal(take(mixed.residual, order), sorted_.residual)
        assert mixed.extra_places.tolist() == sorted_.extra_places.tolist()
        if sorted_.owner is not None:
            assert torch.equal(take(mixed.position, mixed.owner), take(sorted_.position, sorted_.owner))


def test_score_order_is_best_first():
    tokens = some_tokens(None)
    reduced = Drop(order="score")(tokens, stage(6, alignment=Alignment()))
    score = take(SCORE["clip"](tokens, 6, 0), reduced.position)
    assert (score.diff(dim=1) <= 0).all()


def test_tomes_order_is_even_then_odd():
    reduced = replace(BIPARTITE, order="sides")(some_tokens(None), stage(8, alignment=Alignment()))
    parity = reduced.position % 2
    assert (parity.diff(dim=1) >= 0).all()
    assert parity.sum(1).tolist() == [6, 6, 6]


def test_equal_tokens_merge_at_no_change_of_their_value():
    tokens = some_tokens(None)
    flat = Tokens(torch.ones_like(tokens.x), tokens.layout, torch.ones_like(tokens.residual))
    assert torch.equal(BIPARTITE(flat, stage(6)).x, torch.ones(3, 6, 5))


@pytest.mark.parametrize("class_position", [CLASS, None])
@pytest.mark.parametrize("grid", [(3, 4), (4, 3), (2, 6), (12, 1)])
def test_the_two_sides_are_the_fields_of_a_checkerboard(grid, class_position):
    tokens = some_tokens(class_position)
    tokens = replace(tokens, layout=Layout(grid, extras(class_position)))
    kept = CHECKERBOARD(tokens, stage(6)).position[0].tolist()
    image = [p - (class_position is not None and p > CLASS) for p in kept if p != class_position]
    assert len({(cell // grid[1] + cell % grid[1]) % 2 for cell in image}) == 1


def test_a_token_merges_with_the_one_above_it():
    tokens = some_tokens(None)
    columns = torch.eye(4, 5).repeat(3, 1).expand(3, -1, -1)  # every column of the grid of 3 x 4 of its own kind
    reduced = CHECKERBOARD(replace(tokens, x=columns, residual=None), stage(6))
    column = take(reduced.position, reduced.owner) % 4
    assert torch.equal(column, (torch.arange(12) % 4).expand(3, -1))
    assert torch.equal(reduced.x, take(columns, reduced.position)), "equal tokens stay what they were"


def test_a_checkerboard_is_matched_as_often_as_it_takes():
    reduced = CHECKERBOARD(some_tokens(), stage(2))
    assert reduced.layout.image_count == 2
    assert reduced.layout.size.sum(1).eq(13).all()


def test_random_choice_follows_its_seed(images):
    model = randomise(TINY["vim"]())

    def kept(seed):
        pruned = skimba.prune(model, Method(Drop("random")), {2: 0.5}, seed=seed)
        return trace(pruned, images)[-1].position

    assert torch.equal(kept(0), kept(0))
    assert not torch.equal(kept(0), kept(1))


@pytest.mark.parametrize("class_position", [CLASS, None])
def test_an_even_choice_is_evenly_spread(class_position):
    kept = Drop("even")(some_tokens(class_position), stage(4)).position[0].tolist()
    image = [p - (class_position is not None and p > CLASS) for p in kept if p != class_position]
    assert set(torch.tensor(image).diff().tolist()) == {3}
