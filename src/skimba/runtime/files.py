"""Atomic file writes, and checks of the places to write to."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

LEAST_FREE = 1 << 20  # bytes; a disk with less is full
LONGEST_REASON = 200  # characters of another library's message
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: str | Path) -> None:
    """Raise unless a regular file is there, or a link to one: reading a FIFO or a device can block forever.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: it is something else.
        OSError: its status cannot be read.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'something unknown')}, not a regular file")


def check_output(path: str | Path, suffixes: Sequence[str] = (), inputs: Iterable[str | Path] = ()) -> Path:
    """Raise before any work if :func:`write_atomically` could not, or should not, write there. Writes nothing.

    Args:
        suffixes: those allowed, in lower case with their dot, whatever the case in ``path``; any if left out.
        inputs: files that the same run reads, which must not be replaced. They are checked only if the output exists.

    Returns:
        The path.

    Raises:
        ValueError: another suffix; a folder, FIFO, device or socket; one of the inputs.
        OSError: the folder, or the file that is there, cannot be written.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(suffixes)}, got {path.suffix or 'no suffix'!r}")
    target = _target(path)
    there = next(place for place in (target, *target.parents) if place.exists())
    if there == target:
        same = (os.path.samestat(target.stat(), os.stat(one)) for one in inputs if os.path.exists(one))
        if any(same):
            raise ValueError(f"{path} is an input of the same run; choose another place for the output")
        there = target.parent
        if not os.access(target, os.W_OK):
            raise PermissionError(f"cannot write {path}: the file there is read-only")
    if not there.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write {path}: the folder {there} is not writable")
    return path


def check_output_folder(path: str | Path, inputs: Iterable[str | Path] = ()) -> Path:
    """Raise before any work if files could not, or should not, be written into a folder, there or not. Writes nothing.

    Args:
        inputs: files and folders that the same run reads: the folder must not be one of them.

    Returns:
        The path.

    Raises:
        ValueError: something else is there, or one of the inputs.
        OSError: it cannot be written.
    """
    path = Path(path)
    there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ValueError(f"{path} must be a folder, or nothing yet, but {there} is a file")
    if path.exists() and any(os.path.samefile(path, one) for one in inputs if os.path.exists(one)):
        raise ValueError(f"{path} is an input of the same run; choose another place for the output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {path}: the folder {there} is not writable")
    return path


def write_atomically(path: str | Path, write: Callable[[str], object]) -> None:
    """Write a file so that after a crash at any moment either the old or the new content is there, whole.

    Symbolic links are followed. An existing file keeps its mode; a new one gets what the umask allows, whatever ``write``
    does. Missing folders are created. An interruption leaves at most ``NAME.partial``, which the next call replaces.

    Args:
        write: called with the path of an empty file to fill.

    Raises:
        ValueError: a folder, FIFO, device or socket is there.
        OSError: it cannot be written, for instance because the disk is full; the old content is intact.
    """
    target = _target(Path(path))
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.open("xb").close()
        mode = stat.S_IMODE((target if target.exists() else partial).stat().st_mode)
        write(str(partial))
        partial.chmod(mode)
        _sync(partial)
        os.replace(partial, target)
    except BaseException as error:
        reason = _reason(error, target)  # before the partial file frees its space
        with suppress(OSError):  # what could not be created cannot be removed
            partial.unlink(missing_ok=True)
        if reason is None:
            raise
        raise OSError(f"cannot write {path} ({reason}); what was there before is intact") from error
    _sync(target.parent)


def write_text_atomically(path: str | Path, text: str) -> None:
    """:func:`write_atomically` for text, in UTF-8."""
    write_atomically(path, lambda partial: Path(partial).write_text(text, encoding="utf-8"))


def _target(path: Path) -> Path:
    """The file that the path means, links followed."""
    try:
        target = path.resolve()
        if os.path.lexists(target):  # also true of circular links
            check_regular(target)
    except (RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) or error.errno == errno.ELOOP:  # RuntimeError before Python 3.13
            raise ValueError(f"{path} is a link to itself") from error
        raise
    return target


def _reason(error: BaseException, target: Path) -> str | None:
    """Why a file cannot be written, in one line; None for errors that have nothing to do with files."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    folder = next(place for place in target.parents if place.is_dir())
    if isinstance(error, Exception) and shutil.disk_usage(folder).free < LEAST_FREE:
        return os.strerror(
            errno.ENOSPC
        )  # the writers of torch, safetensors and pyarrow have messages of their own for it
    if isinstance(error, OSError | RuntimeError):  # torch.save raises RuntimeError
        return " ".join(str(error).split())[:LONGEST_REASON]
    return None


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(opened)
