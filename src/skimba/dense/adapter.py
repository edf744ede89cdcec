"""ViT-Adapter's parts (arXiv 2205.08534): maps of four strides beside a plain backbone, which exchange with its tokens.

Source: github czczup/ViT-Adapter (adapter_modules.py), as PlainMamba's detectors use it. Parameter names are the official ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from skimba.layers.deformable import DeformableAttention, Grid

NORM_EPS = 1e-6


class SpatialPrior(nn.Module):
    """Convolutions that give maps of strides 4, 8, 16 and 32 of a picture."""

    def __init__(self, in_chans: int, width: int, embed_dim: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_norm_relu(in_chans, width, 2),
            *_conv_norm_relu(width, width, 1),
            *_conv_norm_relu(width, width, 1),
            nn.MaxPool2d(3, 2, 1),
        )
        self.conv2 = nn.Sequential(*_conv_norm_relu(width, 2 * width, 2))
        self.conv3 = nn.Sequential(*_conv_norm_relu(2 * width, 4 * width, 2))
        self.conv4 = nn.Sequential(*_conv_norm_relu(4 * width, 4 * width, 2))
        self.fc1 = nn.Conv2d(width, embed_dim, 1)
        self.fc2 = nn.Conv2d(2 * width, embed_dim, 1)
        self.fc3 = nn.Conv2d(4 * width, embed_dim, 1)
        self.fc4 = nn.Conv2d(4 * width, embed_dim, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(b c height width)`` -> four maps ``(b d h w)``, the finest first."""
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)


def _conv_norm_relu(in_chans: int, out_chans: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_chans, out_chans, 3, stride, 1, bias=False)
    return conv, nn.BatchNorm2d(out_chans), nn.ReLU(inplace=True)


class Injector(nn.Module):
    """Tokens read from the maps; what they read is scaled by ``gamma``, which starts at 0."""

    def __init__(self, embed_dim: int, heads: int, points: int, levels: int = 3) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.attn = DeformableAttention(embed_dim, heads, levels, points)
        self.gamma = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, x: Tensor, reference: Tensor, cells: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Tokens ``x (b l d)`` at ``reference (l 2)`` or ``(b l 2)``, after reading ``cells (b m d)`` of all maps."""
        return x + self.gamma * self.attn(self.query_norm(x), reference, self.feat_norm(cells), grids)


class Extractor(nn.Module):
    """The cells of the maps read from the tokens' grid; then a small feed-forward with a convolution over each map."""

    def __init__(self, embed_dim: int, heads: int, points: int, ffn_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.attn = DeformableAttention(embed_dim, heads, 1, points)
        self.ffn = ConvFeedForward(embed_dim, int(embed_dim * ffn_ratio))
        self.ffn_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        cells: Tensor,
        reference: Tensor,
        grids: Sequence[Grid],
        values: Tensor,
        index: Tensor | None,
        token_grid: Grid,
    ) -> Tensor:
        """The cells ``(b m d)`` of all maps after reading the tokens.

        Args:
            cells: ``(b m d)``, one map after the other.
            reference: ``(m 2)``, where each cell stands.
            grids: height and width of each map.
            values, index: what the tokens' grid shows (see :class:`DeformableAttention`).
            token_grid: its height and width.
        """
        read = self.attn(self.query_norm(cells), reference, self.feat_norm(values), [token_grid], index)
        cells = cells + read
        return cells + self.drop_path(self.ffn(self.ffn_norm(cells), grids))


class ConvFeedForward(nn.Module):
    """Linear, depthwise 3×3 convolution over each map, GELU, linear."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.dwconv = _OnMaps(hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, cells: Tensor, grids: Sequence[Grid]) -> Tensor:
        """``(b m d)`` -> ``(b m d)``."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(cells), grids)))


class _OnMaps(nn.Module):
    """The depthwise convolution under its official name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, cells: Tensor, grids: Sequence[Grid]) -> Tensor:
        return flatten_maps([self.dwconv(one) for one in split_maps(cells, grids)])


class Interaction(nn.Module):
    """One exchange: an injector before some blocks of the backbone and an extractor (or several) after them."""

    def __init__(
        self, embed_dim: int, heads: int, points: int, ffn_ratio: float, drop_path: float, extra_extractors: int
    ) -> None:
        super().__init__()

        def extractor() -> Extractor:
            return Extractor(embed_dim, heads, points, ffn_ratio, drop_path)

        self.injector = Injector(embed_dim, heads, points)
        self.extractor = extractor()
        extra = [extractor() for _ in range(extra_extractors)]
        self.extra_extractors: nn.ModuleList | None = nn.ModuleList(extra) if extra else None

    @property
    def extractors(self) -> list[nn.Module]:
        """All of them, in the order in which they run."""
        return [self.extractor, *(self.extra_extractors or ())]


def flatten_maps(maps: Sequence[Tensor]) -> Tensor:
    """Maps ``(b d h w)`` -> their cells ``(b m d)``, one map after the other."""
    return torch.cat([one.flatten(2).transpose(1, 2) for one in maps], 1)


def split_maps(cells: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """The inverse of :func:`flatten_maps`."""
    parts = cells.split([height * width for height, width in grids], 1)
    return [part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, grids, strict=True)]
