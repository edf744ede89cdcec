"""What a pruning adds to the features that heads read: a linear function of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class Correction(nn.Linear):
    """``x + weight x + bias`` on ``(... d)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x.to(self.weight.dtype))


def make_corrections(widths: Iterable[int], like: Tensor) -> nn.ModuleList:
    """One for features of each width, of the dtype and on the device of a tensor; the weights are not set."""
    return nn.ModuleList(Correction(width, width, device=like.device, dtype=like.dtype) for width in widths)
