"""The effective receptive field: which pixels a token after some block depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from skimba.insight.places import check_positions, position_of_patch, token_of_position
from skimba.insight.watching import plain_mode, watch_block
from skimba.models import TokenModel


def receptive_field(model: TokenModel, images: Tensor, position: int | None = None, block: int | None = None) -> Tensor:
    """``(height width)``, of clips ``(t height width)``: how strongly the token that stands for a position depends on each pixel.

    The mean over the images of the absolute gradient of the sum of its channels, summed over colours; its sum is 1.

    Args:
        model: dense or pruned.
        images: ``(b c height width)``; a few dozen give a smooth picture.
        position: of the full sequence; the patch in the middle if None.
        block: after which the token is read, 1-based; the last if None.

    Raises:
        ValueError: a block or position out of range; images that keep different numbers of tokens; a position that no token
            stands for in any image.

    Source: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks" (arXiv 1701.04128).
    """
    with plain_mode(), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        tokens = watch_block(model, pixels, len(model.layers) if block is None else block).left
        layout = tokens.layout
        if position is None:
            position = position_of_patch(layout, tuple(side // 2 for side in layout.grid))
        check_positions(layout, [position])
        token = torch.stack([token_of_position(layout, image)[position] for image in range(len(images))])
        there = (token >= 0).nonzero()[:, 0]
        if not len(there):
            raise ValueError(f"no token stands for position {position} in any of the {len(images)} images")
        (found,) = torch.autograd.grad(tokens.stream[there, token[there]].sum(), pixels)
    field = found.float().abs().sum((0, 1))
    return field / field.sum().clamp(min=torch.finfo(field.dtype).tiny)


def area(field: Tensor, share: float = 0.8) -> float:
    """The smallest share of the pixels, in 0 … 1, that together hold ``share`` of a receptive field ``(height width)``.

    Raises:
        ValueError: ``share`` is not in 0 … 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be 0 … 1, got {share}")
    strongest = field.flatten().sort(descending=True).values.cumsum(0)
    return int((strongest < share * strongest[-1]).sum() + 1) / field.numel()
