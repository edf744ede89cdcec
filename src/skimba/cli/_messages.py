"""Errors and names as printed: one line, of bounded length, without terminal escape sequences."""

from __future__ import annotations

import re

LONGEST = 2_000  # characters
# Terminals' escape sequences, and what is left of control characters once white space is one space.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text without escape sequences and control characters, on one line; bytes that are not UTF-8 as ``\\xNN``."""
    plain = _CONTROL.sub("", " ".join(_ESCAPES.sub("", text).split()))
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(error: BaseException) -> str:
    """The message of an error, with its type where the message is empty or makes no sense alone."""
    said = printable(str(error))
    if isinstance(error, KeyError | AssertionError | RecursionError | MemoryError) or not said:
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return said if len(said) <= LONGEST else said[: LONGEST - 2] + " …"
