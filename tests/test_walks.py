import math

import numpy as np
import pytest

from skimba.layers.mamba import PlainMambaMixer
from skimba.tokens.walks import DOWN, LEFT, RIGHT, START, UP, WALKS, full_walk, moves

STEP = {RIGHT: (0, 1), LEFT: (0, -1), UP: (-1, 0), DOWN: (1, 0)}
SIZES = [(1, 1), (1, 5), (5, 1), (2, 2), (4, 6), (5, 3), (3, 4), (14, 14)]
CLIPS = [(1, 3, 4), (4, 2, 3), (3, 5, 1)]
ONLY_IMAGES = {name for name in WALKS if name.startswith(("snake_up", "snake_columns"))}  # PlainMamba's


@pytest.mark.parametrize("grid", [*SIZES, *CLIPS], ids=str)
@pytest.mark.parametrize("name", WALKS)
def test_every_walk_visits_every_cell_once(name, grid):
    if len(grid) == 3 and name in ONLY_IMAGES:
        pytest.skip("a walk over pictures")
    walk = WALKS[name](grid)
    assert np.array_equal(np.sort(walk[walk >= 0]), np.arange(math.prod(grid)))
    windows = [int(part) for part in name.replace("_back", "").split("windows")[1:]]
    padded = math.prod(size + -size % side for side in windows for size in grid[-2:])
    assert len(walk) == (padded * math.prod(grid[:-2]) if windows else math.prod(grid))


@pytest.mark.parametrize("grid", SIZES, ids=str)
@pytest.mark.parametrize("name", PlainMambaMixer.walks)
def test_snakes_are_continuous_and_their_moves_are_named(name, grid):
    order, move, width = WALKS[name](grid), moves(name, grid), grid[1]
    assert move[order[0]] == START
    for before, after in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
        down, right = STEP[int(move[after])]
        assert (before // width + down, before % width + right) == (after // width, after % width)


@pytest.mark.parametrize("grid", CLIPS, ids=str)
def test_a_snake_through_a_clip_goes_to_neighbours(grid):
    places = np.array(np.unravel_index(WALKS["snake"](grid), grid))
    assert (np.abs(np.diff(places)).sum(0) == 1).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_walks_start_where_the_official_ones_do(height, width):
    last = height * width - 1
    bottom = last if height % 2 else (height - 1) * width
    right = last if width % 2 else width - 1
    starts = [int(WALKS[name]((height, width))[0]) for name in PlainMambaMixer.walks]
    assert starts == [0, bottom, 0, right]


def test_windows_by_hand():
    expected = [0, 1, 3, 4, 2, -1, 5, -1, 6, 7, -1, -1, 8, -1, -1, -1]
    assert WALKS["windows2"]((3, 3)).tolist() == expected
    assert WALKS["windows2_back"]((3, 3)).tolist() == expected[::-1]


def test_time_by_hand():
    assert WALKS["time"]((3, 1, 2)).tolist() == [0, 2, 4, 1, 3, 5]


def test_extra_tokens_are_visited_at_their_own_step_and_padding_comes_after_the_last_position():
    # cells 0 1 2 3 5 4 in windows of 2 over (2, 3) with two paddings; positions: 0 1 X 2 3 4 Y 5 of the sequence
    assert WALKS["windows2"]((2, 3)).tolist() == [0, 1, 3, 4, 2, -1, 5, -1]
    walk = full_walk("windows2", (2, 3), (2, 6)).tolist()
    assert walk == [0, 1, 2, 4, 5, 3, 6, 8, 7, 9]


def test_cached_walks_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        full_walk("rows", (2, 2), ())[0] = 3
