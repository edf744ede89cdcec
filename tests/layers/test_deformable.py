"""Deformable attention against a reading of its formula, one place at a time."""

import math

import pytest
import torch

from skimba.layers.deformable import DeformableAttention, centres
from skimba.ops import sample_maps

GRIDS = [(3, 5), (2, 2)]


def read_one(cells, x, y):
    """The value at x, y (in cells, centres at whole numbers) of ``cells (h w c)``, zero outside."""
    total = torch.zeros(cells.shape[-1], dtype=cells.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]:
                total = total + cells[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def by_hand(value, grids, locations, weights):
    batch, queries, heads = weights.shape[:3]
    out = torch.zeros(batch, queries, heads, value.shape[-1], dtype=value.dtype)
    parts = value.split([h * w for h, w in grids], 1)
    for b, q, k in torch.cartesian_prod(torch.arange(batch), torch.arange(queries), torch.arange(heads)).tolist():
        for level, (height, width) in enumerate(grids):
            cells = parts[level][b, :, k].view(height, width, -1)
            for place, weight in zip(locations[b, q, k, level].tolist(), weights[b, q, k, level], strict=True):
                out[b, q, k] += weight * read_one(cells, place[0] * width - 0.5, place[1] * height - 0.5)
    return out.flatten(2)


@pytest.mark.parametrize("reach", [(0.2, 0.8), (-0.6, 1.6)])
def test_sampling_is_the_formula(reach):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 19, 3, 4, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, 6, 3, 2, 5, 2, generator=generator, dtype=torch.float64)
    locations = locations * (reach[1] - reach[0]) + reach[0]
    weights = torch.rand(2, 6, 3, 2, 5, generator=generator, dtype=torch.float64)
    got = sample_maps(value, GRIDS, locations, weights)
    torch.testing.assert_close(got, by_hand(value, GRIDS, locations, weights))


def test_sampling_has_the_gradients_of_its_formula():
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(1, 19, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    locations = torch.rand(1, 3, 2, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 3, 2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, p, w: sample_maps(v, GRIDS, p, w), (value, locations, weights))


def test_centres_are_in_raster_order():
    expected = [[x, y] for y in (0.25, 0.75) for x in (1 / 6, 0.5, 5 / 6)]
    torch.testing.assert_close(centres((2, 3), torch.device("cpu")), torch.tensor(expected))


def test_at_first_every_head_looks_its_own_way():
    attention = DeformableAttention(8, 4, 2, 3)
    offsets = attention.sampling_offsets.bias.view(4, 2, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    steps = torch.arange(1, 4)[:, None]
    for level in range(2):
        torch.testing.assert_close(offsets[:, level], directions[:, None] * steps, atol=1e-6, rtol=0)


def test_the_width_is_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match="multiple of the heads, got 10 and 4"):
        DeformableAttention(10, 4, 1, 4)
