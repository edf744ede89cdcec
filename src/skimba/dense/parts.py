"""Convolution, norm and activation under the names that the official checkpoints give them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Scores and coordinates of pixels need more than bfloat16's eight bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ConvNorm(nn.Module):
    """A convolution ``conv``, then BatchNorm ``bn`` if ``norm``, then ReLU if ``activate``. It keeps the size of its maps.

    With a norm the convolution has no bias.
    """

    def __init__(
        self, in_chans: int, out_chans: int, kernel_size: int, *, norm: bool = True, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size, padding=kernel_size // 2, bias=not norm)
        self.bn: nn.BatchNorm2d | None = nn.BatchNorm2d(out_chans) if norm else None
        self.activate = nn.ReLU() if activate else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(b c h w)`` -> ``(b c' h w)``."""
        x = self.conv(x)
        return self.activate(x if self.bn is None else self.bn(x))
