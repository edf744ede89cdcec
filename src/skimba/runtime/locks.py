"""Folder locks: one process at a time."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}  # some network file systems: nothing is guarded there


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder that several runs must not write to at once. The lock is released when the process ends.

    The lock is POSIX's, which forked workers do not inherit: it ends with this process, whatever they do.

    Raises:
        OSError: another process holds it, or the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise OSError(f"another process is writing to {folder}; wait for it, or choose another place") from None
            if error.errno not in NO_LOCKS:
                raise
        yield
