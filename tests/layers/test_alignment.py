"""The alignment's definitions, computed position by position, in every scan order of both models."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from skimba.layers.alignment import align_conv1d, align_conv2d
from skimba.ops import causal_conv1d, depthwise_conv2d, selective_scan
from skimba.tokens import DECAY, HOLD, HOLD_FIRST_ORDER, NONE, Alignment, Layout, group_sum, take
from skimba.tokens.walks import full_walk

GRID = (5, 6)
FULL, KEPT, WIDTH, STATES, BATCH = 30, 11, 4, 3, 2
ORDERS = ("forward", "backward", "snake", "snake_up", "snake_columns", "snake_columns_left", "rows_back", "columns")


def random_layout(alignment, seed=0, extras=()):
    """A layout of KEPT tokens of FULL positions, different in each image, each position owned by a random token."""
    generator = torch.Generator().manual_seed(seed)
    full = FULL + len(extras)
    position = torch.stack([torch.randperm(full, generator=generator)[:KEPT].sort().values for _ in range(BATCH)])
    owner = torch.randint(KEPT, (BATCH, full), generator=generator)
    owner.scatter_(1, position, torch.arange(KEPT).expand(BATCH, -1))
    return Layout(GRID, extras, position, owner, alignment)


def order_of(layout, name):
    """A scan of the layout, and the positions of the full sequence in the order in which that scan visits them."""
    walk = torch.arange(layout.full_length)
    if name == "forward":
        return layout.line_orders[0], walk
    if name == "backward":
        return layout.line_orders[1], walk.flip(0)
    return layout.order(name), torch.tensor(full_walk(name, layout.grid, layout.extras))


def visited(layout, order):
    """Positions of the kept tokens, in the order in which the scan visits them: ``(b l)``."""
    position = layout.position if order.index is None else take(layout.position, order.index.long())
    return position.flip(1) if order.reverse else position


@pytest.mark.parametrize("name", ORDERS)
def test_orders_visit_the_kept_tokens_as_the_full_walk_does(name):
    layout = random_layout(DECAY)
    order, walk = order_of(layout, name)
    for image in range(BATCH):
        kept = set(layout.position[image].tolist())
        assert visited(layout, order)[image].tolist() == [p for p in walk.tolist() if p in kept]


@pytest.mark.parametrize(("rule", "gap_delta"), [("decay", "previous"), ("decay_own", "own"), ("decay_bias", "bias")])
@pytest.mark.parametrize("name", ORDERS)
def test_decay_is_the_full_scan_without_input_at_missing_positions(name, rule, gap_delta):
    torch.manual_seed(0)
    layout = random_layout(Alignment(rule, "zeros"))
    order, walk = order_of(layout, name)
    u, delta = torch.randn(2, BATCH, KEPT, WIDTH, dtype=torch.float64)
    B, C = torch.randn(2, BATCH, KEPT, STATES, dtype=torch.float64)
    A, bias = -torch.rand(WIDTH, STATES, dtype=torch.float64), torch.randn(WIDTH, dtype=torch.float64)
    # the rules compute in float32, so the identity holds to its rounding.
    time = layout.alignment.scan.time(order, delta, bias)
    got = selective_scan(u, delta, A, B, C, None, None, bias, reverse=order.reverse, **time)
    for image in range(BATCH):
        steps = range(KEPT - 1, -1, -1) if order.reverse else range(KEPT)
        at = dict(
            zip(visited(layout, order)[image].tolist(), steps, strict=True)
        )  # position -> step of the condensed scan
        state, previous = torch.zeros(WIDTH, STATES, dtype=torch.float64), None
        following = list(at.values())
        for position in walk.tolist():
            if position in at:
                j = at[position]
                following.pop(0)
                time = F.softplus(delta[image, j] + bias)
                state = torch.exp(time[:, None] * A) * state + (time * u[image, j])[:, None] * B[image, j]
                torch.testing.assert_close(got[image, j], state @ C[image, j], rtol=1e-5, atol=1e-6)
                previous = j
            elif previous is not None and following:
                raw = {"previous": delta[image, previous], "own": delta[image, following[0]], "bias": 0}[gap_delta]
                state = torch.exp(F.softplus(raw + bias)[:, None] * A) * state


@pytest.mark.parametrize(("align", "operand"), [(HOLD, "hold"), (HOLD_FIRST_ORDER, "step")])
@pytest.mark.parametrize("name", ORDERS)
def test_hold_counts_the_positions_that_the_visited_token_owns(name, align, operand):
    layout = random_layout(align)
    order, _ = order_of(layout, name)
    time = layout.alignment.scan.time(order, torch.randn(BATCH, KEPT, WIDTH), torch.zeros(WIDTH))
    assert time.keys() == {operand}
    step = time[operand]
    step = step.flip(1) if order.reverse else step
    for image in range(BATCH):
        for j, position in enumerate(visited(layout, order)[image].tolist()):
            token = layout.position[image].tolist().index(position)
            assert step[image, j] == (layout.owner[image] == token).sum()


def convolutions(layout):
    weight1, weight2, bias = torch.randn(WIDTH, 4), torch.randn(WIDTH, 3, 5), torch.randn(WIDTH)
    for reverse in (False, True):
        yield (
            lambda x, reverse=reverse: align_conv1d(layout, x, weight1, bias, reverse),
            lambda full, reverse=reverse: causal_conv1d(full, weight1, bias, reverse=reverse),
        )
    yield (
        lambda x: align_conv2d(layout, x, weight2, bias),
        lambda full: depthwise_conv2d(full.unflatten(1, GRID), weight2, bias).flatten(1, 2),
    )


def test_decays_convolution_sees_zeros_at_missing_positions():
    layout = random_layout(DECAY)
    x = torch.randn(BATCH, KEPT, WIDTH)
    for aligned, dense in convolutions(layout):
        full = torch.zeros(BATCH, FULL, WIDTH)
        for image in range(BATCH):
            full[image, layout.position[image]] = x[image]
        expected = torch.stack([dense(full)[image, layout.position[image]] for image in range(BATCH)])
        torch.testing.assert_close(aligned(x), expected)


def test_holds_convolution_is_the_mean_over_the_positions_that_a_token_owns():
    layout = random_layout(HOLD)
    x = torch.randn(BATCH, KEPT, WIDTH)
    for aligned, dense in convolutions(layout):
        full = torch.stack([x[image, layout.owner[image]] for image in range(BATCH)])
        c, got = dense(full), aligned(x)
        for image in range(BATCH):
            for token in range(KEPT):
                mean = c[image, layout.owner[image] == token].mean(0)
                torch.testing.assert_close(got[image, token], mean, rtol=1e-4, atol=1e-5)


def test_hold_equals_the_dense_convolution_where_owned_tokens_are_equal_and_adjacent():
    runs = torch.tensor([3, 1, 5, 2, 6, 1, 4, 8])
    owner = torch.repeat_interleave(torch.arange(len(runs)), runs)[None]
    position = (runs.cumsum(0) - runs)[None]
    layout = Layout(GRID, (), position, owner, HOLD)
    x = torch.randn(1, len(runs), WIDTH)
    for aligned, dense in convolutions(layout):
        over_runs = group_sum(dense(take(x, owner)), owner, len(runs)) / runs[:, None]
        torch.testing.assert_close(aligned(x), over_runs)


def test_condensed_convolution_sees_the_kept_tokens_side_by_side():
    layout = random_layout(NONE)
    x = torch.randn(BATCH, KEPT, WIDTH)
    weight, bias = torch.randn(WIDTH, 4), torch.randn(WIDTH)
    torch.testing.assert_close(align_conv1d(layout, x, weight, bias, False), causal_conv1d(x, weight, bias))


def test_a_held_convolution_without_owners_is_refused():
    layout = replace(random_layout(HOLD), owner=None)
    with pytest.raises(ValueError, match="needs positions with owners"):
        align_conv1d(layout, torch.randn(BATCH, KEPT, WIDTH), torch.randn(WIDTH, 4), torch.randn(WIDTH), False)
