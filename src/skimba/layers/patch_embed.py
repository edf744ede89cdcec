"""From image to tokens: patches, positions and their resizing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Vim's patches: one convolution, overlapping if ``stride < patch_size`` (github hustvl/Vim, models_mamba.py)."""

    def __init__(self, patch_size: int, stride: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, stride
        self.proj: nn.Module = nn.Conv2d(in_chans, embed_dim, patch_size, stride)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The grid ``(h, w)`` of an image of that size."""
        return tuple((size - self.patch_size) // self.stride + 1 for size in (height, width))  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """``(b c height width)`` -> ``(b h w d)``."""
        return self.proj(images).permute(0, 2, 3, 1)


class FrameEmbed(PatchEmbed):
    """VideoMamba's patches of clips, each of one frame, stored as a 3-D kernel of depth 1 (github OpenGVLab/VideoMamba,
    videomamba.py; all published models have tubelets of one frame)."""

    def __init__(self, patch_size: int, stride: int, in_chans: int, embed_dim: int) -> None:
        super().__init__(patch_size, stride, in_chans, embed_dim)
        self.proj = nn.Conv3d(in_chans, embed_dim, (1, patch_size, patch_size), (1, stride, stride))

    def forward(self, clips: Tensor) -> Tensor:
        """``(b c t height width)`` -> ``(b t h w d)``."""
        return self.proj(clips).permute(0, 2, 3, 4, 1)


class ConvStem(nn.Module):
    """PlainMamba's patches: a convolutional stem at half resolution, then a projection
    (github ChenhongyiYang/PlainMamba, patch_embed.py)."""

    width = 64

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, convs: int) -> None:
        super().__init__()
        if patch_size % 2:
            raise ValueError(f"PlainMamba's stem halves the image first: patch_size must be even, got {patch_size}")
        self.patch_size = patch_size
        self.stem = _conv_norm_relu(in_chans, self.width, kernel_size=7, stride=2)
        layers = [layer for _ in range(convs) for layer in _conv_norm_relu(self.width, self.width, 3, 1)]
        self.convs = nn.Sequential(*layers)
        self.projection = nn.Conv2d(self.width, embed_dim, patch_size // 2, patch_size // 2)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """The grid ``(h, w)`` of an image of that size."""
        halved = ((height + 1) // 2, (width + 1) // 2)
        return tuple(-(-size // (self.patch_size // 2)) for size in halved)  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """``(b c height width)`` -> ``(b h w d)``."""
        x = self.convs(self.stem(images))
        patch = self.patch_size // 2
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % patch, 0, -height % patch))  # compat: zeros at the right and the bottom edge
        return self.projection(x).permute(0, 2, 3, 1)


def _conv_norm_relu(in_chans: int, out_chans: int, kernel_size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_chans), nn.ReLU(inplace=True))


Extras = Callable[[int], tuple[int, ...]]  # positions of the extra tokens in a sequence, by the number of image tokens


def no_extras(image_tokens: int) -> tuple[int, ...]:
    """No extra token."""
    return ()


def in_the_middle(image_tokens: int) -> tuple[int, ...]:
    """One class token, in the middle."""
    return (image_tokens // 2,)


def at_the_start(image_tokens: int) -> tuple[int, ...]:
    """One class token, first."""
    return (0,)


def fit_positions(pos_embed: Tensor, grid: tuple[int, ...], target: tuple[int, ...], extras: Extras) -> Tensor:
    """``pos_embed (1 L d)`` for one grid, resized to another; rows of extra tokens go to their places unchanged."""
    if grid == target:
        return pos_embed
    image, extra = take_out(pos_embed, extras(grid[0] * grid[1]))
    resized = _resize(image[0].unflatten(0, grid), target).flatten(0, 1)[None]
    return put_in(resized, extra, extras(target[0] * target[1]))


def fit_times(temporal: Tensor, frames: int) -> Tensor:
    """``temporal (1 t d)`` for another number of frames, linear without aligned corners (as the official code does)."""
    if temporal.shape[1] == frames:
        return temporal
    resized = F.interpolate(temporal.mT.float(), size=frames, mode="linear", align_corners=False)
    return resized.mT.to(temporal.dtype)


def take_out(x: Tensor, positions: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Tokens ``(b L d)`` -> image tokens, and the extra ones ``(b x d)`` at those positions."""
    edges = (-1, *positions, x.shape[1])
    image = torch.cat([x[:, a + 1 : b] for a, b in pairwise(edges)], 1)
    return image, torch.cat([x[:, p : p + 1] for p in positions] or [x[:, :0]], 1)


def put_in(image: Tensor, extra: Tensor, positions: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`take_out`."""
    parts, start = [], 0
    for number, position in enumerate(positions):
        end = position - number  # image tokens before it
        parts += [image[:, start:end], extra[:, number : number + 1]]
        start = end
    return torch.cat([*parts, image[:, start:]], 1)


def _resize(positions: Tensor, grid: tuple[int, ...]) -> Tensor:
    """``(h w d)`` at another grid size, bicubic without aligned corners (as the official code does)."""
    channels_first = positions.permute(2, 0, 1)[None].float()
    resized = F.interpolate(channels_first, size=grid, mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).to(positions.dtype)
