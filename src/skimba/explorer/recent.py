"""What was computed lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
REMEMBERED = 64  # results


class Recent:
    """The last few results of a function of hashable arguments. For one thread."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._found: OrderedDict[Hashable, Any] = OrderedDict()
        self._most = most

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result for the key, made if it is not known."""
        if key not in self._found:
            self._found[key] = make()
            if len(self._found) > self._most:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        found: T = self._found[key]
        return found
