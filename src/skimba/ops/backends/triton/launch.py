"""Starting a kernel, on the device that its tensors are on."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, programs: int, like: Tensor, *arguments: Any, warps: int, **constants: Any) -> None:
    """Run ``programs`` programs of a kernel on the device of ``like``."""
    if programs:
        with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
            kernel[(programs,)](*arguments, **constants, num_warps=warps)


def cdiv(a: int, b: int) -> int:
    """How many pieces of ``b`` hold ``a``."""
    return -(-a // b)
