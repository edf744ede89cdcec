"""Text that comes from files and other libraries, fit for one line on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 200  # characters


def plain(text: object, most: int = MOST) -> str:
    """One line of at most ``most`` characters, without control characters (escape codes start with one)."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= most else line[: most - 2] + " …"


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first ``most`` of some names, and how many more there are: ``"a, b and 3 more"``."""
    shown = [plain(name, 80) for name in names]
    more = len(shown) - most
    return ", ".join(shown) if more <= 0 else f"{', '.join(shown[:most])} and {more} more"
