"""Deformable attention over feature maps of several strides (Deformable DETR, arXiv 2010.04159, equation 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skimba.ops import sample_maps
from skimba.tokens import take

Grid = tuple[int, int]  # height and width of one map


def centres(grid: Grid, device: torch.device) -> Tensor:
    """``(h*w 2)``: x and y of the centres of a grid's cells in raster order, in shares (0, 1) of its width and height."""
    y, x = ((torch.arange(size, device=device) + 0.5) / size for size in grid)
    return torch.stack([x.expand(*grid), y[:, None].expand(*grid)], -1).flatten(0, 1)


class DeformableAttention(nn.Module):
    """Each query reads a few places near its own on every map. Parameter names are those of the official state dicts.

    Args:
        embed_dim: width of queries and values.
        heads: attention heads.
        levels: maps to read from.
        points: places that a head reads on each map.
    """

    def __init__(self, embed_dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"the width must be a multiple of the heads, got {embed_dim} and {heads}")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(embed_dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(embed_dim, heads * levels * points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Head ``i`` looks in direction ``i``, point ``j`` that many cells away; all places count the same."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * steps[:, None]  # (heads 1 points 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        for zero in (self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(zero)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def multiply_adds(self, queries: int) -> int:
        """Of reading alone: four cells and a weight for every channel of every place."""
        return 5 * queries * self.levels * self.points * self.output_proj.out_features

    def forward(
        self, query: Tensor, reference: Tensor, values: Tensor, grids: Sequence[Grid], index: Tensor | None = None
    ) -> Tensor:
        """What the queries read.

        Args:
            query: ``(b q d)``.
            reference: ``(q 2)`` or ``(b q 2)``: where each query stands, x and y in shares of the width and height.
            values: ``(b m d)``: the cells of all maps, one map after the other; with ``index`` only the distinct ones.
            grids: height and width of each map.
            index: ``(b M)`` int64: which of the values each cell shows. They are projected before they are repeated.

        Returns:
            ``(b q d)``.
        """
        value = self.value_proj(values)
        value = value if index is None else take(value, index)
        shape = (*query.shape[:2], self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        size = torch.tensor([[width, height] for height, width in grids], dtype=query.dtype, device=query.device)
        locations = reference.to(query.dtype)[..., None, None, None, :] + offsets / size[:, None]
        return self.output_proj(sample_maps(value.unflatten(2, (self.heads, -1)), grids, locations, weights))
