"""Starting a kernel, on the device that its tensors are on."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor


def launch(
    kernel: Any,
    programs: int,
    like: Tensor,
    *arguments: Any,
    warps: int,
    registers: int | None = None,
    **constants: Any,
) -> None:
    """Run ``programs`` programs of a kernel on the device of ``like``. ``warps``, ``registers``: see ``Configuration``."""
    if programs:
        with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
            kernel[(programs,)](*arguments, **constants, **options(warps, registers))


def options(warps: int, registers: int | None) -> dict[str, int]:
    """As Triton's compiler takes them. That for AMD's GPUs knows no limit of registers."""
    limit = {} if registers is None or torch.version.hip is not None else {"maxnreg": registers}
    return {"num_warps": warps, **limit}


def cdiv(a: int, b: int) -> int:
    """How many pieces of ``b`` hold ``a``."""
    return -(-a // b)
