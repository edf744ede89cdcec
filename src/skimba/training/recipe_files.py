"""Recipes as TOML files, and as plain data."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from skimba.training.recipe import Recipe
from skimba.training.values import unknown_key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_recipe(source: str | Path, overrides: Iterable[str | tuple[str, Any]] = ()) -> Recipe:
    """A recipe from a TOML file, or the plain one for a model's name.

    Args:
        source: a path that ends in ``.toml``, or a name of :func:`skimba.list_models`.
        overrides: settings that override it, as pairs or as text: ``[("epochs", 3), "prune.method=top"]``.

    Raises:
        FileNotFoundError: no such file.
        ValueError, TypeError: not TOML, an unknown key (the nearest is suggested), or a value that is not allowed.
    """
    content: dict[str, Any] = {"model": str(source)}
    if str(source).endswith(".toml"):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {path}")
        try:
            content = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
    for key, value in (_key_and_value(given) if isinstance(given, str) else given for given in overrides):
        _set(content, key, value)
    known = [field.name for field in fields(Recipe)]
    for key in content:
        if key not in known:
            raise ValueError(unknown_key(key, known))
    if missing := [f.name for f in fields(Recipe) if f.default is MISSING and f.name not in content]:
        raise ValueError(f"{source} does not say {', '.join(missing)}")
    recipe = Recipe(**content)
    return recipe.as_smoke() if recipe.smoke else recipe


def as_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, without what does not change the outcome."""
    return {name: value for name, value in asdict(recipe).items() if name != "micro_batch_size"}


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"overrides are key=value, got {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value  # text without its quotes


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = content.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{key}: {part} is not a table")
        content = inner
    content[last] = value
