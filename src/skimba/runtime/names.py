"""Names of files as text that survives any table, terminal or line-by-line tool, and back.

A file name is a sequence of bytes; Python represents bytes that are not UTF-8 as lone surrogates, which neither text files nor
Parquet columns can hold.
"""

from __future__ import annotations

import re

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {escaped: char for char, escaped in _SHORT.items()}
# Control characters, what str.splitlines takes for the end of a line, marks that reorder text, and lone surrogates.
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|.|$)", re.DOTALL)


def escape(name: str) -> str:
    r"""The name as one line of printable UTF-8; :func:`unescape` reverses it.

    Printable characters stay as they are, except the backslash, which is doubled. Line feed, carriage return and tab become
    ``\n``, ``\r`` and ``\t``; a byte that is not UTF-8 becomes ``\xNN``; other control characters become ``\uNNNN``.
    """
    return _UNSAFE.sub(_escaped, name)


def unescape(text: str) -> str:
    r"""The name that :func:`escape` was given.

    Raises:
        ValueError: a backslash begins none of the escapes.
    """
    return _ESCAPE.sub(_meant, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return _SHORT.get(char, f"\\u{ord(char):04x}")


def _meant(found: re.Match[str]) -> str:
    escaped = found[0]
    if escaped in _LONG:
        return _LONG[escaped]
    if len(escaped) == 4 and int(escaped[2:], 16) >= 0x80:
        return chr(0xDC00 + int(escaped[2:], 16))
    if len(escaped) == 6:
        return chr(int(escaped[2:], 16))
    raise ValueError(
        f"{found.string!r} is not an escaped name: {escaped!r} is not one of \\\\ \\n \\r \\t \\xNN \\uNNNN"
    )
