"""UperNet's heads (arXiv 1807.10221), as mmsegmentation has them. Parameter names are those of the official checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skimba.dense.parts import ConvNorm, at_least_float32

POOL_SCALES = (1, 2, 3, 6)


def resize_map(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """``(b c h w)`` at another height and width, bilinear."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class UperHead(nn.Module):
    """Pyramid pooling of the last map, a pyramid of all maps, and the classes."""

    def __init__(self, in_chans: Sequence[int], width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        *others, last = in_chans
        self.conv_seg = nn.Conv2d(width, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvNorm(last, width, 1)) for scale in POOL_SCALES
        )
        self.bottleneck = ConvNorm(last + len(POOL_SCALES) * width, width, 3)
        self.lateral_convs = nn.ModuleList(ConvNorm(chans, width, 1) for chans in others)
        self.fpn_convs = nn.ModuleList(ConvNorm(width, width, 3) for _ in others)
        self.fpn_bottleneck = ConvNorm(len(in_chans) * width, width, 3)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(b c h w)``, the finest first -> logits ``(b classes h w)`` at the finest map's size."""
        last = maps[-1]
        pooled = [resize_map(module(last), last.shape[2:]) for module in self.psp_modules]
        sideways = [conv(one) for conv, one in zip(self.lateral_convs, maps[:-1], strict=True)]
        sideways.append(self.bottleneck(torch.cat([last, *pooled], 1)))
        for level in range(len(sideways) - 1, 0, -1):
            finer = sideways[level - 1]
            sideways[level - 1] = finer + resize_map(sideways[level], finer.shape[2:])
        out = [conv(one) for conv, one in zip(self.fpn_convs, sideways[:-1], strict=True)]
        out = [resize_map(one, maps[0].shape[2:]) for one in (*out, sideways[-1])]
        return at_least_float32(self.conv_seg(self.dropout(self.fpn_bottleneck(torch.cat(out, 1)))))


class FCNHead(nn.Module):
    """One convolution and the classes: an auxiliary loss for the backbone, unused after training."""

    def __init__(self, in_chans: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(width, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.convs = nn.ModuleList([ConvNorm(in_chans, width, 3)])
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(b c h w)`` -> logits ``(b classes h w)``."""
        return at_least_float32(self.conv_seg(self.dropout(self.convs[0](x))))
