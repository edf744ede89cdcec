"""The compiled kernels: whether they are here, which instruction sets this CPU can run, and which one is in use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch  # first: torch brings the OpenMP runtime whose threads the kernels share
from torch import Tensor

_native: Any
try:
    _native = importlib.import_module("skimba.ops._native")  # so written, a missing module is named as that

    UNAVAILABLE: str | None = None  # the reason why the kernels cannot run
except ImportError as error:
    _native = None
    UNAVAILABLE = f"the native kernels were not built or do not load ({error}); install with a C++17 compiler"


def variants() -> list[str]:
    """The instruction sets that this CPU can run, best last; empty without native kernels."""
    return [] if _native is None else list(_native.variants())


def in_use() -> str | None:
    """The instruction set of the kernels that run now."""
    return None if _native is None else str(_native.in_use())


def has_openmp() -> bool:
    """Whether the kernels were built with threads."""
    return _native is not None and bool(_native.openmp)


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed tensors for the next ones, instead of returning it to the system.

    A model's forward is then up to a third faster, and the process stays as large as its peak. This changes the allocator of
    the whole process, so a program decides it, not the library; the ``skimba`` command does.

    Returns:
        Whether it could be done: False without glibc or without native kernels.
    """
    return _native is not None and bool(_native.keep_freed_memory())


@contextmanager
def use(variant: str) -> Iterator[None]:
    """Run the kernels of another instruction set, one of :func:`variants`, in the whole process. For tests.

    Raises:
        RuntimeError: there are no native kernels.
        ValueError: this CPU cannot run ``variant``.
    """
    if _native is None:
        raise RuntimeError(UNAVAILABLE)
    before = _native.in_use()
    _native.select(variant)
    try:
        yield
    finally:
        _native.select(before)


def evaluate(function: str, x: Tensor) -> Tensor:
    """A kernels' elementary function (``exp2``, ``exp``, ``softplus``, ``silu``) of float32 ``x``. For tests."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _native.map(["exp2", "exp", "softplus", "silu"].index(function), x.data_ptr(), y.data_ptr(), x.numel())
    return y
