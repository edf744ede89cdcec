"""Sizes of a model, checked before anything is built with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from skimba.models.base import TokenModel
from skimba.runtime.messages import plain

MAY_BE_ZERO = frozenset({"num_classes"})
LARGEST = 1 << 20  # of any size: far above what anyone builds, far below what overflows


def check_sizes(model: type[TokenModel], sizes: Mapping[str, Any]) -> None:
    """Raise unless ``model`` has all of these sizes and each has a value that it can have.

    Raises:
        TypeError: a size that the model does not have.
        ValueError: a value of another type, or out of range.
    """
    allowed = inspect.signature(model).parameters
    if unknown := sorted(sizes.keys() - allowed.keys()):
        names = ", ".join(plain(name, 40) for name in unknown)
        raise TypeError(f"{model.__name__} takes {', '.join(allowed)}; got {plain(names)}")
    hints = get_type_hints(model.__init__)
    for name, value in sizes.items():
        hint = hints[name]
        options = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
        kinds = [KINDS[get_origin(option) or option] for option in options]
        least = 0 if name in MAY_BE_ZERO else 1
        if not any(fits(value, least) for _, fits in kinds):
            words = " or ".join(word for word, _ in kinds).replace("LEAST", str(least))
            raise ValueError(f"{name} must be {words}, got {plain(repr(value), 80)}")
    patch, image = (sizes.get(name, allowed[name].default) for name in ("patch_size", "img_size"))
    sides = (image, image) if isinstance(image, int) else image
    if min(sides) < patch:
        raise ValueError(f"img_size must be at least one patch ({patch} px), got {image}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _pair(value: object, least: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_whole(side, least) for side in value)


def _whole_list(value: object, least: int) -> bool:
    return isinstance(value, list | tuple) and len(value) <= LARGEST and all(_whole(one, 0) for one in value)


def _rate(value: object, least: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


# What an argument of each type may be, in words and as a test of (value, least).
KINDS: dict[Any, tuple[str, Callable[[object, int], bool]]] = {
    int: (f"a whole number from LEAST to {LARGEST}", _whole),
    tuple: ("a pair of such", _pair),
    Sequence: ("a list of block numbers", _whole_list),
    float: ("a share in [0, 1)", _rate),
    bool: ("true or false", lambda value, least: isinstance(value, bool)),
    str: ("text", lambda value, least: isinstance(value, str)),
    type(None): ("nothing", lambda value, least: value is None),
}
