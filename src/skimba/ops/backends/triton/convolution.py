"""The convolutions by Triton: from checked tensors to the arguments of their kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skimba.ops.backends.triton.kernels.convolution import (
    Grid,
    Sizes,
    convolution,
    gradients_at_positions,
    gradients_of_tokens,
)
from skimba.ops.backends.triton.launch import cdiv, launch
from skimba.ops.backends.triton.tuning import CONFIGURATIONS, Configuration
from skimba.ops.inputs import CausalInputs, GridInputs
from skimba.ops.library import Kernels, hand_back

Taps = tuple[int, int, int, int, bool]  # height and width, the zeros above and left of the grid, mirrored


def causal_taps(s: CausalInputs) -> Taps:
    width = s.weight.shape[1]
    return 1, width, 0, 0 if s.reverse else width - 1, s.reverse


def grid_taps(s: GridInputs) -> Taps:
    height, width = s.weight.shape[1:]
    return height, width, height // 2, width // 2, False


def kernels(inputs: type[Any], taps: Callable[[Any], Taps]) -> Kernels:
    """What runs the convolution of such inputs, and its gradient."""

    def forward(*arguments: Any) -> Tensor:
        s = inputs(*arguments)
        grid, sizes = _arguments(s)
        y = torch.empty_like(s.x, memory_format=torch.contiguous_format)
        _launch(CONFIGURATIONS["convolution"], convolution, s.x, sizes.tokens, grid, y, sizes, TAPS=taps(s))
        return y

    def backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        *given, wanted = arguments
        chosen = CONFIGURATIONS["convolution_backward"]
        s = inputs(*given)
        grid, sizes = _arguments(s)
        count, channels = s.weight[0].numel(), sizes.channels
        positions = sizes.height * sizes.width
        groups = s.x.shape[0] * cdiv(positions, chosen.rows)
        inner, to_weight, to_bias = (
            s.x.new_empty(*shape, dtype=torch.float32)
            for shape in ((s.x.shape[0], positions, channels), (groups, count, channels), (groups, channels))
        )
        rows = _tokens(grad if s.source is not None else grad.flatten(1, -2))
        sums = (inner, to_weight, to_bias)
        _launch(chosen, gradients_at_positions, s.x, positions, grid, rows, *sums, sizes, TAPS=taps(s))
        to_x = torch.empty_like(s.x, memory_format=torch.contiguous_format)
        if wanted[0]:
            _launch(chosen, gradients_of_tokens, s.x, sizes.tokens, grid, inner, to_x, sizes, TAPS=taps(s))
        grads = [to_x, to_weight.sum(0).T.reshape(s.weight.shape), to_bias.sum(0)]
        return hand_back(grad, grads, given[:3], wanted)

    return forward, backward


def _launch(chosen: Configuration, kernel: Any, like: Tensor, rows: int, *arguments: Any, TAPS: Taps) -> None:
    programs = like.shape[0] * cdiv(rows, chosen.rows) * cdiv(like.shape[-1], chosen.channels)
    launch(
        kernel,
        programs,
        like,
        *arguments,
        TAPS=TAPS,
        ROWS=chosen.rows,
        CHANNELS=chosen.channels,
        warps=chosen.warps,
        registers=chosen.registers,
    )


def _arguments(s: CausalInputs | GridInputs) -> tuple[Grid, Sizes]:
    x = s.x if s.x.stride(-1) == 1 else s.x.contiguous()
    weight, bias = s.weight.float().flatten(1).contiguous(), s.bias.float().contiguous()
    if s.source is None:
        height, width = x.shape[1:3] if x.dim() == 4 else (1, x.shape[1])
        strides = (x.stride(0), x.stride(1) if x.dim() == 4 else 0, x.stride(-2))
        return Grid((x, *strides), weight, bias, None, None, None), Sizes(height * width, height, width, x.shape[-1])
    height, width = s.source.shape[1:] if s.source.dim() == 3 else (1, s.source.shape[1])
    source = s.source.flatten(1).contiguous()
    tokens = x.shape[1]
    # Positions in the order of the tokens that they show, and where those of each token begin.
    in_order, positions = source.sort(dim=1, stable=True)
    starts = torch.arange(tokens + 1, device=x.device, dtype=source.dtype).expand(x.shape[0], -1).contiguous()
    first = torch.searchsorted(in_order, starts, out_int32=True)
    grid = Grid((x, x.stride(0), x.stride(1), 0), weight, bias, source, positions.int(), first)
    return grid, Sizes(tokens, height, width, x.shape[2])


def _tokens(x: Tensor) -> tuple[Tensor, int, int]:
    x = x if x.stride(-1) == 1 else x.contiguous()
    return x, x.stride(0), x.stride(1)
