"""Watching the operators: a context in which every call of one is handed to a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Listener = Callable[[str, Any, Any], None]

LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def observe(listener: Listener) -> Iterator[None]:
    """In this context, in this thread (or task), ``listener(name, inputs, output)`` is called after every operator.

    Args:
        listener: gets the operator's name (``"selective_scan"``), its inputs as the named tuple of its arguments
            (:mod:`skimba.ops.inputs`) and its output, all as they are: not copied, not detached. What it raises ends the call.

    Contexts may be nested; each listener is then called, the outer one first. What a compiled function runs is seen
    only while it is traced, and then without values.
    """
    token = LISTENERS.set((*LISTENERS.get(), listener))
    try:
        yield
    finally:
        LISTENERS.reset(token)
