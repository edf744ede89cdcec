"""Addition and RMS norm by Triton: from checked tensors to the arguments of their kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skimba.ops.backends.triton.kernels import norm as norm_kernels
from skimba.ops.backends.triton.launch import cdiv, launch
from skimba.ops.backends.triton.tuning import CONFIGURATIONS
from skimba.ops.inputs import NormInputs


def add_rms_norm(*arguments: Any) -> tuple[Tensor, Tensor]:
    s, chosen = NormInputs(*arguments), CONFIGURATIONS["norm"]
    y, total = _like(s.x, s.x.dtype), _like(s.x, torch.float32)
    residual = None if s.residual is None else s.residual.float().contiguous()
    given = (s.x.contiguous(), residual, s.weight.float().contiguous(), y, total)
    sizes, width = _sizes(s.x)
    programs = cdiv(sizes.rows, chosen.rows)
    launch(norm_kernels.norm, programs, s.x, *given, sizes, s.eps, ROWS=chosen.rows, WIDTH=width, warps=chosen.warps)
    return y, total


def add_rms_norm_backward(
    grad: Tensor, grad_total: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` (and of the residual: the same, float32) and of ``weight``."""
    chosen = CONFIGURATIONS["norm_backward"]
    sizes, width = _sizes(total)
    programs = min(cdiv(sizes.rows, chosen.rows), chosen.programs)
    to_x, to_weight = _like(total, torch.float32), total.new_empty(programs, sizes.width, dtype=torch.float32)
    more = None if grad_total is None else grad_total.float().contiguous()
    given = (total.float().contiguous(), weight.float().contiguous(), grad.contiguous(), more, to_x, to_weight)
    launch(
        norm_kernels.norm_backward,
        programs,
        grad,
        *given,
        sizes,
        eps,
        ROWS=chosen.rows,
        WIDTH=width,
        warps=chosen.warps,
    )
    return to_x, to_weight.sum(0).to(weight.dtype)


def _sizes(x: Tensor) -> tuple[norm_kernels.Sizes, int]:
    """And the width of a program's rows, a power of two."""
    width = x.shape[-1]
    return norm_kernels.Sizes(x.numel() // width, width), 1 << (width - 1).bit_length()


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
