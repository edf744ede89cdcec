"""Parts of a method as plain data for JSON and TOML, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from skimba.pruning.by_score import Drop, Hybrid, Merge
from skimba.pruning.pairs import Pairs
from skimba.pruning.reduction import Reduction
from skimba.tokens import ALIGNMENTS, CONV_RULES, SCAN_RULES, Alignment


def reduction_to_plain(reduction: Reduction) -> dict[str, Any]:
    """``{kind: its settings}``.

    Raises:
        ValueError: it is user-defined.
    """
    for kind, known in REDUCTION.items():
        if type(reduction) is known:
            return {kind: reduction.settings()}
    raise ValueError(f"only {', '.join(REDUCTION)} can be written down, got {reduction}")


def reduction_from_plain(plain: Any) -> Reduction:
    """A kind, or ``{kind: its settings}``, what is left out as the kind has it."""
    given = {plain: {}} if isinstance(plain, str) else plain
    if not isinstance(given, Mapping) or len(given) != 1 or (kind := next(iter(given))) not in REDUCTION:
        raise ValueError(f"a reduction is one of {', '.join(REDUCTION)} with a table of its settings, got {plain!r}")
    settings, known = given[kind], [field.name for field in fields(REDUCTION[kind])]
    if not isinstance(settings, Mapping) or (unknown := [name for name in settings if name not in known]):
        found = f"got {unknown[0]!r}" if isinstance(settings, Mapping) else f"got {settings!r}"
        raise ValueError(f"{kind} takes {', '.join(known)}; {found}")
    return REDUCTION[kind](**settings)


def alignment_to_plain(alignment: Alignment) -> Any:
    """Its name, or ``{"scan": …, "conv": …}``.

    Raises:
        ValueError: a user-defined rule.
    """
    if (name := alignment_name(alignment)) is not None:
        return name
    scan = [name for name, rule in SCAN_RULES.items() if rule == alignment.scan]
    conv = [name for name, rule in CONV_RULES.items() if rule == alignment.conv]
    if not scan or not conv:
        raise ValueError("only named parts can be written down, got a function as align")
    return {"scan": scan[0], "conv": conv[0]}


def alignment_name(alignment: Alignment) -> str | None:
    """Its key in :data:`~skimba.tokens.ALIGNMENTS`, if it has one."""
    return next((name for name, known in ALIGNMENTS.items() if alignment == known), None)


def alignment_from_plain(plain: Any) -> Any:
    """An alignment from ``{"scan": …, "conv": …}``; a name is a name."""
    if not isinstance(plain, Mapping):
        return plain
    if set(plain) != {"scan", "conv"} or not all(isinstance(value, str) for value in plain.values()):
        raise ValueError(
            f"an alignment is one of {', '.join(ALIGNMENTS)} or a table of scan and conv, got {dict(plain)!r}"
        )
    return Alignment(plain["scan"], plain["conv"])


REDUCTION: dict[str, type[Reduction]] = {"drop": Drop, "merge": Merge, "pairs": Pairs, "hybrid": Hybrid}
