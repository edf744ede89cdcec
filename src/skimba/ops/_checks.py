"""What the operators accept: every refusal says what was got and what is allowed, before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from skimba.ops import native

Backend = Literal["auto", "reference", "cpu"]
CPU_DTYPES = (torch.float32, torch.bfloat16)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


_default: Backend = "auto"


def _check_name(backend: str) -> None:
    if backend not in ("auto", "reference", "cpu"):
        raise ValueError(f"backend must be 'auto', 'reference' or 'cpu', got {backend!r}")


@contextmanager
def default_backend(backend: Backend) -> Iterator[None]:
    """Meanwhile, in the whole process, operators that are asked for ``auto`` run this backend: to compare whole models."""
    global _default
    _check_name(backend)
    before, _default = _default, backend
    try:
        yield
    finally:
        _default = before


def choose(backend: str, x: Tensor) -> str:
    """The backend to run: only ``auto`` chooses, a named one that cannot run raises its reason."""
    _check_name(backend)
    if backend == "auto":
        backend = _default
    if backend == "reference":
        return backend
    able = native.UNAVAILABLE is None and x.dtype in CPU_DTYPES and x.device.type == "cpu"
    if able or x.device.type == "meta":  # without data only shapes are asked for, which the operators know at once
        return "cpu"
    if backend == "auto":
        return "reference"
    if native.UNAVAILABLE is not None:
        raise RuntimeError(f"backend 'cpu' cannot run: {native.UNAVAILABLE}")
    raise TypeError(f"backend 'cpu' needs float32 or bfloat16 on cpu, got {x.dtype} on {x.device}")


def check(name: str, x: Tensor, shapes: tuple[tuple[int, ...], ...], like: Tensor) -> None:
    """One of ``shapes``, a floating dtype, the device of ``like``."""
    if x.shape not in shapes:
        allowed = " or ".join(str(s) for s in shapes)
        raise ValueError(f"{name} must have shape {allowed}, got {tuple(x.shape)}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{name} must have a floating dtype, got {x.dtype}")
    if x.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, got {x.device}")


def check_data(name: str, x: Tensor, axes: str) -> None:
    """The operand that gives the sizes: its rank, no empty axis but the batch, a floating dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a Tensor, got {type(x).__name__}")
    if x.dim() != len(axes.split()):
        raise ValueError(f"{name} must have shape ({axes}), got {tuple(x.shape)}")
    if 0 in x.shape[1:]:
        raise ValueError(f"{name} ({axes}) must have at least one element on every axis but b, got {tuple(x.shape)}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{name} must have a floating dtype, got {x.dtype}")
