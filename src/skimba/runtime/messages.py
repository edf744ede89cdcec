"""Text that comes from files and other libraries, as printed: one line, of bounded length, without escape sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL)
_BYTES = range(0xDC80, 0xDD00)  # how Python represents bytes of file names that are not UTF-8


def printable(text: object) -> str:
    """The text on one line, without escape sequences and characters that do not print; bytes that are not UTF-8 as ``\\xNN``."""
    line = " ".join(_ESCAPES.sub("", str(text)).split())
    return "".join(c if c.isprintable() else f"\\x{ord(c) - 0xDC00:02x}" if ord(c) in _BYTES else "" for c in line)


def plain(text: object, most: int = 200) -> str:
    """The text as :func:`printable` has it, cut after ``most`` characters."""
    line = printable(text)
    return line if len(line) <= most else line[: most - 2] + " …"


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first ``most`` of some names, and how many more there are: ``"a, b and 3 more"``."""
    shown = [plain(name, 80) for name in names]
    more = len(shown) - most
    return ", ".join(shown) if more <= 0 else f"{', '.join(shown[:most])} and {more} more"


def one_line(error: BaseException, most: int = 2_000) -> str:
    """The message of an error, with its type where the message is empty or makes no sense alone."""
    said = plain(error, most)
    if isinstance(error, KeyError | AssertionError | RecursionError | MemoryError) or not said:
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return said
