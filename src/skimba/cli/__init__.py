"""The command line. Results go to standard output, progress to standard error; bad input is one line and exit code 2."""

from __future__ import annotations

import os
import sys
import traceback

from skimba.cli._help import quick_answer
from skimba.runtime.messages import one_line

__all__ = ["main"]

DEBUG = "SKIMBA_DEBUG"  # set to 1: show where an error came from


def main() -> None:
    """Run the command line."""
    if (answer := quick_answer(sys.argv[1:])) is not None:
        print(answer)
        return
    try:
        from skimba.cli import _commands  # torch takes a second, in which Ctrl-C is a line too

        _commands.run()
    except KeyboardInterrupt:
        print("skimba: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # anything: a traceback helps only developers
        if os.environ.get(DEBUG) == "1":
            traceback.print_exc()
        print(f"skimba: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
