"""A linear layer whose weight is 8-bit integers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skimba.ops import int8_linear, int8_weight


class Int8Linear(nn.Module):
    """``(b l d)`` -> ``(b l e)``, the product in 8-bit integers; see :func:`skimba.ops.int8_linear`. For inference.

    The float weight is not kept: ``weight (e d)`` int8 and ``scale (e)`` float32 are buffers. The bias is the given layer's own.

    Args:
        linear: the layer that it stands for.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = int8_weight(linear.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self.training = linear.training

    def forward(self, input: Tensor) -> Tensor:
        return int8_linear(input, self.weight, self.scale, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Linear:
        """The scale stays float32 when the model is cast to bfloat16 or float16: its rounding would be the weight's."""
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype in (torch.bfloat16, torch.float16):
            self.scale = scale.to(self.scale.device)
        return self
