"""The application, how commands take their options, how results are shown."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import typer
from rich.console import Console

from skimba.data.loading import Rejected
from skimba.runtime.messages import printable
from skimba.runtime.processes import rank

app = typer.Typer(
    help="Token pruning for vision state space models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
INTERRUPTED = 130  # exit code of a shell for a command that Ctrl-C ended
Function = TypeVar("Function", bound=Callable[..., None])
WRITER = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, only one prints
out, err = Console(quiet=not WRITER), Console(stderr=True, quiet=not WRITER)


def command(name: str) -> Callable[[Function], Function]:
    """Register a command. A parameter that is a dataclass of options stands for its fields."""

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
        parameters: list[inspect.Parameter] = []
        for given in inspect.signature(function).parameters.values():
            if given.name in groups:
                parameters += _options_of(groups[given.name])
            else:
                parameters.append(given.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[given.name]))

        def run(**values: Any) -> None:
            made = {
                name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
                for name, kind in groups.items()
            }
            try:
                function(**made, **values)
            except KeyboardInterrupt:  # typer would answer in its own way
                warn("skimba: interrupted")
                raise typer.Exit(INTERRUPTED) from None

        run.__doc__ = function.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name)(run)
        return function

    return register


def _options_of(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]


def say(text: str) -> None:
    """A line of the result, to standard output, by one process."""
    out.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line to standard error."""
    err.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def warn_of(rejected: list[Rejected]) -> None:
    """How many pictures could not be read, if any."""
    if rejected:
        distinct = {one.name: one for one in rejected}
        warn(f"{len(distinct)} unreadable, for instance {rejected[0].reason}")


def print_json(content: object) -> None:
    """To standard output, by one process."""
    if rank() == 0:
        print(json.dumps(content, indent=2))
