"""Names and what they stand for: wherever a name is accepted, a function or value is too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def choose(table: Mapping[str, Any], given: Any, what: str) -> Any:
    """The entry of a table for a name; anything that can be called, and any entry, stands for itself.

    Raises:
        ValueError: the name is not in the table.
        TypeError: neither a name nor a function.
    """
    if isinstance(given, str):
        if given not in table:
            raise ValueError(f"unknown {what} {given!r}; known: {', '.join(table)}, or a function")
        return table[given]
    if callable(given) or any(given == entry for entry in table.values()):
        return given
    raise TypeError(f"{what} is a name ({', '.join(table)}) or a function, got {given!r}")


def named(table: Mapping[str, Any], given: Any, what: str) -> Any:
    """The name of a choice where the table has one, so that an entry given by name and by value are the same choice; else the
    function itself.

    Raises:
        ValueError, TypeError: as :func:`choose`.
    """
    entry: Callable[..., Any] = choose(table, given, what)
    return next((name for name, known in table.items() if known == entry), entry)
