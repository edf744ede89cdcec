"""The command line. Results go to standard output, progress to standard error; bad input is one line and exit code 2."""

from __future__ import annotations

import sys

from skimba.cli import learning, measuring  # noqa: F401, the commands register themselves
from skimba.cli._app import app
from skimba.ops import native
from skimba.runtime.processes import process_group

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    native.keep_freed_memory()
    try:
        with process_group():
            app()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        message = " ".join(str(error).split())
        print(f"skimba: {message}", file=sys.stderr)
        sys.exit(2)
