"""What a setting's value may be: its type, a finite number, a known key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, get_args, get_origin


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that is not known, with the nearest that is."""
    known = list(known)
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")


def check_finite(name: str, value: Any) -> None:
    """Raise ValueError where a number of a setting is NaN or infinite."""
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        inner = ((f"{name}.{key}", one) for key, one in value.items())
    elif isinstance(value, (list, tuple)):
        inner = ((name, one) for one in value)
    for key, one in inner:
        check_finite(key, one)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value, if it has the field's type; integers are accepted as floats, lists as tuples."""
    options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    for option in options:
        kind = get_origin(option) or option
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
            return tuple(map(float, value))
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    allowed = " or ".join(
        "nothing" if o is type(None) else getattr(get_origin(o) or o, "__name__", str(o)) for o in options
    )
    raise TypeError(f"{name} must be {allowed.replace('Mapping', 'table')}, got {value!r}")
