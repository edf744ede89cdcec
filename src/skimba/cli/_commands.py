"""All commands, and the processes that run them."""

from __future__ import annotations

from skimba.cli import (  # noqa: F401, they register themselves
    compare,
    evaluate,
    explore,
    export,
    measuring,
    predict,
    publish,
    train,
)
from skimba.cli._app import app
from skimba.ops import native
from skimba.runtime.processes import process_group

__all__ = ["app", "run"]


def run() -> None:
    """The command that ``sys.argv`` asks for."""
    native.keep_freed_memory()
    with process_group():
        app()
