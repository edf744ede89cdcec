"""What a pruning adds to the features that the head reads: a linear function of them."""

from __future__ import annotations

from torch import Tensor, nn


class Correction(nn.Linear):
    """``x + weight x + bias`` on ``(... d)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x.to(self.weight.dtype))
