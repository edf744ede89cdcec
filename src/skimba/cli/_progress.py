"""Progress, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from skimba.cli._app import WRITER, err


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """With rate and remaining time, on standard error. An error before the first step leaves nothing of it: what is refused is
    one line."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Its own thread would steal time from what is measured.
    progress = Progress(*columns, console=err, auto_refresh=False, disable=not WRITER)
    progress.start()
    try:
        yield progress
    except BaseException:
        progress.live.transient = not any(task.completed for task in progress.tasks)
        raise
    finally:
        (progress.live if progress.live.transient else progress).stop()  # Progress adds an empty line


@contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; the function that it yields advances it."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.update(task, advance=count, refresh=True)
