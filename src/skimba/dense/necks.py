"""From a backbone's maps to the five maps that detection heads read, all of one width, each of twice the stride of the last."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from skimba.dense.parts import ConvNorm


class FPN(nn.Module):
    """Feature pyramid (arXiv 1612.03144) with BatchNorm; a fifth map is every second cell of the fourth.

    Parameter names are those of the official checkpoints.

    Args:
        in_chans, strides: of the maps that come in.
        out_chans: of those that go out.

    Attributes:
        strides: of the maps that go out, in pixels.
    """

    def __init__(self, in_chans: Sequence[int], strides: Sequence[int], out_chans: int) -> None:
        super().__init__()
        self.strides = (*strides, 2 * strides[-1])
        self.lateral_convs = nn.ModuleList(ConvNorm(width, out_chans, 1, activate=False) for width in in_chans)
        self.fpn_convs = nn.ModuleList(ConvNorm(out_chans, out_chans, 3, activate=False) for _ in in_chans)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``(b c h w)``, the finest first -> one more map, all of ``out_chans``."""
        sideways = [conv(one) for conv, one in zip(self.lateral_convs, maps, strict=True)]
        for level in range(len(sideways) - 1, 0, -1):
            finer = sideways[level - 1]
            sideways[level - 1] = finer + F.interpolate(sideways[level], size=finer.shape[2:], mode="nearest")
        out = [conv(one) for conv, one in zip(self.fpn_convs, sideways, strict=True)]
        return [*out, out[-1][:, :, ::2, ::2]]


class SimplePyramid(nn.Module):
    """ViTDet's pyramid (arXiv 2203.16527, section 3): one map at 4, 2, 1 and ½ of its resolution; a fifth as in :class:`FPN`.

    Args:
        in_chans, stride: of the map that comes in; the stride is a multiple of 4.
        out_chans: of those that go out.

    Attributes:
        strides: of the maps that go out, in pixels.
    """

    def __init__(self, in_chans: int, stride: int, out_chans: int) -> None:
        super().__init__()
        if stride % 4:
            raise ValueError(f"the pyramid quarters the stride of its map: it must be a multiple of 4, got {stride}")
        self.strides = tuple(stride * quarters // 4 for quarters in (1, 2, 4, 8, 16))
        half, quarter = in_chans // 2, in_chans // 4
        scales: list[tuple[int, list[nn.Module]]] = [
            (quarter, [_doubled(in_chans, half), ChannelNorm(half), nn.GELU(), _doubled(half, quarter)]),
            (half, [_doubled(in_chans, half)]),
            (in_chans, []),
            (in_chans, [nn.MaxPool2d(2)]),
        ]
        self.scales = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(width, out_chans, 1, bias=False),
                ChannelNorm(out_chans),
                nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
                ChannelNorm(out_chans),
            )
            for width, layers in scales
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map ``(b c h w)`` -> five, the finest first."""
        (one,) = maps
        out = [scale(one) for scale in self.scales]
        return [*out, out[-1][:, :, ::2, ::2]]


def _doubled(in_chans: int, out_chans: int) -> nn.Module:
    return nn.ConvTranspose2d(in_chans, out_chans, 2, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``(b c h w)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
