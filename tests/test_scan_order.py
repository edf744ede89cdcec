import pytest
import torch

from skimba.tokens.walks import DOWN, LEFT, RIGHT, START, UP, snake_orders

STEP = {RIGHT: (0, 1), LEFT: (0, -1), UP: (-1, 0), DOWN: (1, 0)}
SIZES = [(1, 1), (1, 5), (5, 1), (2, 2), (4, 6), (5, 3), (3, 4), (14, 14)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_walks_are_continuous_and_visit_every_position_once(height, width):
    orders, moves = snake_orders(height, width)
    for order, move in zip(orders, moves, strict=True):
        assert torch.equal(order.sort().values, torch.arange(height * width))
        assert move[order[0]] == START
        for before, after in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
            down, right = STEP[int(move[after])]
            assert (before // width + down, before % width + right) == (after // width, after % width)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_walks_start_where_the_official_ones_do(height, width):
    last = height * width - 1
    orders, _ = snake_orders(height, width)
    bottom = last if height % 2 else (height - 1) * width
    right = last if width % 2 else width - 1
    assert [int(order[0]) for order in orders] == [0, bottom, 0, right]
