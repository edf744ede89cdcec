"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Write a file so that after a crash at any moment either the old or the new content is there, whole.

    Raises:
        OSError: it cannot be written, the disk being full for instance; what was there before is left as it was.
    """
    partial = path.with_name(path.name + ".partial")  # of one name, so that kills leave no litter
    try:
        write(str(partial))
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save's own writer raises RuntimeError
        partial.unlink(missing_ok=True)
        reason = " ".join(str(error).split())
        raise OSError(f"cannot write {path} ({reason}); what was there before is intact") from error


def write_text_atomically(path: Path, text: str) -> None:
    """:func:`write_atomically` for text."""
    write_atomically(path, lambda partial: Path(partial).write_text(text))
