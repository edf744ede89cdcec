"""Anchors, box deltas and matching, where mmdetection's rules differ from torchvision's.

Boxes are ``x0 y0 x1 y1`` in pixels of the picture that the network sees, with continuous coordinates: the width is x1 - x0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator


class CornerAnchors(AnchorGenerator):
    """Anchors centred on the corners of their cells, never rounded, at strides that are given and not guessed from sizes.

    Args:
        strides: of each map, in pixels.
        scale: side of the square anchor, in strides.
        ratios: height / width of the anchors of a cell.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
        self.strides = tuple(strides)
        super().__init__(tuple((scale * stride,) for stride in strides), (ratios,) * len(self.strides))

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """``(anchors 4)`` around the origin."""
        side = torch.as_tensor(scales, dtype=dtype, device="cpu")  # known whatever device a model is built on
        root = torch.as_tensor(aspect_ratios, dtype=dtype, device="cpu").sqrt()
        width, height = (side / root[:, None]).flatten(), (side * root[:, None]).flatten()
        return torch.stack([-width, -height, width, height], 1) / 2

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """For each map ``(b c h w)`` its anchors ``(h*w*anchors 4)``: cells in raster order, then the anchors of a cell."""
        placed = []
        for one, stride, base in zip(maps, self.strides, self.cell_anchors, strict=True):
            y, x = (torch.arange(size, dtype=base.dtype, device=one.device) * stride for size in one.shape[2:])
            corner = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1).reshape(-1, 1, 2)
            placed.append((corner.repeat(1, 1, 2) + base.to(one.device)).flatten(0, 1))
        return placed


class ClampedBoxCoder(BoxCoder):
    """As torchvision's, but width and height are clamped below too: boxes shrink at most as far as they may grow."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        _, _, width, height = self.weights
        low = rel_codes.new_tensor(
            [-torch.inf, -torch.inf, -self.bbox_xform_clip * width, -self.bbox_xform_clip * height]
        )
        codes = rel_codes.unflatten(1, (-1, 4)).maximum(low).flatten(1)
        return super().decode_single(codes, boxes)


class BestMatcher(Matcher):
    """As torchvision's, but a box that is an object's best is that object's, if they overlap by ``least``; later objects win."""

    def __init__(self, high_threshold: float, low_threshold: float, least: float) -> None:
        super().__init__(high_threshold, low_threshold, allow_low_quality_matches=True)
        self.least = least

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        best = match_quality_matrix.amax(1, keepdim=True)
        wins = (match_quality_matrix == best) & (best >= self.least)  # (objects boxes)
        number = torch.arange(len(wins), device=wins.device)[:, None]
        winner = torch.where(wins, number, -1).amax(0)
        matches.copy_(torch.where(winner >= 0, winner, matches))
