"""What runs an operator. Torch's dispatcher chooses by the device of the tensors; a name only overrides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from skimba.ops import library
from skimba.ops.backends import cpu, mamba_ssm, native, reference, triton
from skimba.ops.library import Operator
from skimba.ops.observe import LISTENERS

__all__ = ["BACKENDS", "Backend", "default_backend", "mamba_ssm", "native", "run", "triton"]

Backend = Literal["auto", "reference", "cpu", "triton", "mamba_ssm"]


def run(operator: Operator, inputs: Any, backend: Backend) -> Any:
    """The output of an operator for checked inputs, by a key of :data:`BACKENDS`."""
    if backend == "auto":
        backend = _DEFAULT.get()
    _check_name(backend)
    output = BACKENDS[backend](operator, inputs)
    for listener in LISTENERS.get():
        listener(operator.name, inputs, output)
    return output


@contextmanager
def default_backend(backend: Backend) -> Iterator[None]:
    """In this context, in this thread (or task), ``auto`` means this backend: for comparing whole models.

    Raises:
        ValueError: ``backend`` is not a key of :data:`BACKENDS`.
    """
    _check_name(backend)
    token = _DEFAULT.set(backend)
    try:
        yield
    finally:
        _DEFAULT.reset(token)


def _check_name(backend: str) -> None:
    if backend not in BACKENDS:
        *first, last = map(repr, BACKENDS)
        raise ValueError(f"backend must be {', '.join(first)} or {last}, got {backend!r}")


def _dispatched(operator: Operator, inputs: Any) -> Any:
    return library.call(operator.forward, *inputs)


_DEFAULT: ContextVar[Backend] = ContextVar("default_backend", default="auto")
BACKENDS: dict[str, Callable[[Operator, Any], Any]] = {
    "auto": _dispatched,
    "reference": reference.run,
    "cpu": cpu.run,
    "triton": triton.run,
    "mamba_ssm": mamba_ssm.run,
}
