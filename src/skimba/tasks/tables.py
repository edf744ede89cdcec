"""Rows of dataclasses as tables: CSV, Parquet, and lines of JSON for what a run keeps until it ends.

A field is a number, a string, or a tuple of these, at any depth. In CSV a tuple of numbers is written with spaces between them,
any other tuple as JSON. Texts are written as :func:`skimba.runtime.names.escape` makes them, and come back as they were.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from skimba.runtime.files import write_atomically, write_text_atomically
from skimba.runtime.names import escape, unescape

Row = TypeVar("Row")


def write_rows(rows: Sequence[Any], kind: type, path: str | Path) -> None:
    """Write rows of one kind (a dataclass or a named tuple) in the format that the path's suffix names, atomically.

    Raises:
        ValueError: another suffix.
        ImportError: Parquet, and pyarrow is not installed (``pip install 'skimba[parquet]'``).
    """
    path = Path(path)
    records = [_changed(record_of(row), escape) for row in rows]
    _format(path)[0](records, kind, path)


def read_rows(path: str | Path, kind: type[Row]) -> list[Row]:
    """What :func:`write_rows` wrote. Columns that the kind does not have are ignored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no predictions at {path}")
    read = _format(path)[1]
    try:
        return [from_record(kind, _changed(record, unescape)) for record in read(path, kind)]
    except ImportError:
        raise
    except Exception as error:  # arbitrary bytes can make the readers of three formats raise anything
        raise ValueError(f"{path} does not hold predictions of skimba: {error}") from error


def record_of(row: Any) -> dict[str, Any]:
    """A row as plain data."""
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row._asdict())


def from_record(kind: type[Row], record: dict[str, Any]) -> Row:
    """The row; fields with a default may be missing.

    Raises:
        TypeError, ValueError: a field that is missing or of another type.
    """
    hints = get_type_hints(kind)
    given = {name: _as(hint, record[name]) for name, hint in hints.items() if record.get(name) is not None}
    if missing := [name for name in _columns(kind) if name not in given and not _has_default(kind, name)]:
        raise ValueError(f"no {', '.join(missing)}")
    return kind(**given)


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Cells that hold a comma, a quote or the end of a line are quoted."""
    lines = [",".join(map(_cell, line)) + "\n" for line in (head, *rows)]
    write_text_atomically(path, "".join(lines))


def _write_csv(records: list[dict[str, Any]], kind: type, path: Path) -> None:
    names = _columns(kind)
    write_csv(path, names, ([_flat(record[name]) for name in names] for record in records))


def _read_csv(path: Path, kind: type) -> list[dict[str, Any]]:
    hints = get_type_hints(kind)
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, strict=True))
    return [{n: _unflat(hints[n], text) for n, text in row.items() if n in hints} for row in found]


def _write_parquet(records: list[dict[str, Any]], kind: type, path: Path) -> None:
    arrow, parquet = _pyarrow()
    table = arrow.table({name: [record[name] for record in records] for name in _columns(kind)})
    write_atomically(path, lambda partial: parquet.write_table(table, partial))


def _read_parquet(path: Path, kind: type) -> list[dict[str, Any]]:
    return list(_pyarrow()[1].read_table(path).to_pylist())


def _format(path: Path) -> tuple[Callable[..., None], Callable[..., list[dict[str, Any]]]]:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"tables are {' or '.join(FORMATS)}, got {path.name}")
    return FORMATS[path.suffix.lower()]


def _columns(kind: type) -> list[str]:
    return list(kind._fields) if hasattr(kind, "_fields") else [field.name for field in fields(kind)]


def _has_default(kind: type, name: str) -> bool:
    if hasattr(kind, "_field_defaults"):
        return name in kind._field_defaults
    return any(field.name == name and field.default is not MISSING for field in fields(kind))


def _as(hint: Any, value: Any) -> Any:
    """The value as the field's type: lists become tuples."""
    if get_origin(hint) is tuple:
        if isinstance(value, (str, bytes)):
            raise TypeError(f"expected a list, got {value!r}")
        return tuple(_as(get_args(hint)[0], one) for one in value)
    if isinstance(value, hint) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int):
        return float(value)
    raise TypeError(f"expected {hint.__name__}, got {value!r}")


def _flat(value: Any) -> Any:
    if not isinstance(value, (tuple, list)):
        return value
    numbers = all(isinstance(one, (int, float)) for one in value)
    return " ".join(map(repr, value)) if numbers else json.dumps(value, ensure_ascii=False)


def _unflat(hint: Any, text: str) -> Any:
    if get_origin(hint) is not tuple:
        return text if hint is str else hint(text)
    inner = get_args(hint)[0]
    return [inner(part) for part in text.split()] if inner in (int, float) else json.loads(text or "[]")


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The value with all strings in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(one, change) for key, one in value.items()}
    return [_changed(one, change) for one in value] if isinstance(value, (tuple, list)) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'skimba[parquet]', or write .csv") from error
    return pyarrow, pyarrow.parquet


FORMATS: dict[str, tuple[Callable[..., None], Callable[..., list[dict[str, Any]]]]] = {
    ".csv": (_write_csv, _read_csv),
    ".parquet": (_write_parquet, _read_parquet),
}
