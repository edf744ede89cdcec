"""The tensors of a selective scan, as they travel between its public function and its backends."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from skimba.ops._checks import check, check_data


class ScanInputs(NamedTuple):
    """Arguments of :func:`skimba.selective_scan`, in its order; shapes and meaning are said there."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    z: Tensor | None = None
    delta_bias: Tensor | None = None
    gap: Tensor | None = None
    step: Tensor | None = None
    missing: Tensor | None = None
    order: Tensor | None = None


NO_GRADIENT = ("missing", "order")  # counts and indices
NONNEGATIVE = ("gap", "step", "missing")  # times and factors on them


def check_scan(s: ScanInputs) -> None:
    """Raise ValueError or TypeError unless the tensors fit each other. The values are looked at by the backends."""
    check_data("u", s.u, "b l e")
    batch, length, channels = data = tuple(s.u.shape)
    if s.A.dim() != 2 or s.A.shape[1] == 0:
        raise ValueError(f"A must have shape (e n) with n >= 1, got {tuple(s.A.shape)}")
    states = s.A.shape[1]
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "delta": (data,),
        "A": ((channels, states),),
        "B": ((batch, length, states),),
        "C": ((batch, length, states),),
        "D": ((channels,),),
        "z": (data,),
        "delta_bias": ((channels,),),
        "gap": ((batch, length), data),
        "step": ((batch, length),),
        "missing": ((batch, length),),
    }
    for name, allowed in shapes.items():
        x = getattr(s, name)
        if x is not None:
            check(name, x, allowed, s.u)
    if s.order is not None:
        if tuple(s.order.shape) not in ((length,), (batch, length)):
            raise ValueError(f"order must have shape {(length,)} or {(batch, length)}, got {tuple(s.order.shape)}")
        if s.order.dtype != torch.int32 or s.order.device != s.u.device:
            raise TypeError(f"order must be int32 on {s.u.device}, got {s.order.dtype} on {s.order.device}")
