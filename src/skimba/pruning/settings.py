"""Arguments of ``prune`` as plain data, from JSON, TOML and files that skimba 0.1.0 wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skimba.pruning.by_score import Drop, Hybrid, Merge
from skimba.pruning.method import Method, find_method
from skimba.pruning.pairs import Pairs
from skimba.pruning.reduction import Reduction
from skimba.pruning.targets import read_target
from skimba.tokens import Alignment

ARGUMENTS = ("method", "schedule", "seed")


def read_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`skimba.prune` from plain data: what :meth:`Pruner.to_dict` gives, what a recipe's ``[prune]`` holds, or
    what 0.1.0 wrote.

    Raises:
        ValueError, TypeError: not such a table.
    """
    if not isinstance(plain, Mapping):
        raise TypeError(f"prune takes a table of {', '.join(ARGUMENTS)}, got {plain!r}")
    if set(plain) >= OLD and not set(plain) & {"method", "schedule"}:
        return _from_0_1(plain)
    if unknown := [key for key in plain if key not in ARGUMENTS]:
        raise ValueError(f"prune takes {', '.join(ARGUMENTS)}; got {unknown[0]!r}")
    found = dict(plain)
    if "method" in found:
        method = found["method"]
        found["method"] = Method.from_dict(method) if isinstance(method, Mapping) else find_method(method)
    schedule = found.get("schedule")
    if isinstance(schedule, Mapping) and (target := read_target(schedule)) is not None:
        found["schedule"] = target
    return found


def _from_0_1(old: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Pruner.settings()`` of 0.1.0 wrote; settings that had no effect there are left out."""
    if unknown := set(old) - OLD - {"seed"}:
        raise ValueError(f"a pruning of skimba 0.1.0 has no {', '.join(sorted(unknown))}")
    if old["reduction"] not in OLD_REDUCTION:
        raise ValueError(f"unknown reduction {old['reduction']!r} of skimba 0.1.0")
    alignment = _alignment_0_1(old)
    part = OLD_REDUCTION[old["reduction"]]
    settings = {name: old[name] for name in ("selection", "owner", "likeness")} | {"score": old["importance"]}
    if settings["selection"] == "top":
        settings["selection"] = "highest"
    if isinstance(part, Drop) and not alignment.needs_owner:
        del settings["owner"]
    known = part.settings()
    reduction = type(part)(**{**known, **{name: value for name, value in settings.items() if name in known}})
    stages = tuple(old["stages"]) if isinstance(old["stages"], list) else old["stages"]
    counts = None if old["counts"] == "share" else old["counts"]
    method = Method(reduction, alignment, counts, stages, old["head_only"])
    return {"method": method, "schedule": old["keep"], "seed": old.get("seed", 0)}


def _alignment_0_1(old: Mapping[str, Any]) -> Alignment:
    align, conv = old["align"], old["align_conv"]
    if align not in OLD_CONV or old["gap_delta"] not in OLD_DECAY:
        raise ValueError(f"unknown align {align!r} or gap_delta {old['gap_delta']!r} of skimba 0.1.0")
    scan = OLD_DECAY[old["gap_delta"]] if align == "decay" else OLD_SCAN.get(align, align)
    if isinstance(conv, bool):
        conv = OLD_CONV[align] if conv else "condensed"
    return Alignment(scan, conv)


OLD = {
    *(
        "keep",
        "reduction",
        "importance",
        "selection",
        "owner",
        "likeness",
        "align",
        "align_conv",
        "gap_delta",
        "stages",
    ),
    *("counts", "head_only"),
}
OLD_CONV = {"none": "condensed", "decay": "zeros", "hold": "held"}
OLD_SCAN = {"hold": "hold_first_order"}  # 0.1.0 held to first order only; such files keep their results
OLD_DECAY = {"previous": "decay", "own": "decay_own", "bias": "decay_bias"}
OLD_REDUCTION: dict[str, Reduction] = {
    "drop": Drop(),
    "merge": Merge(),
    "hybrid": Hybrid(),
    "drop_by_score": Drop(order="score"),
    "bipartite": Pairs("sequence", once=True),
    "bipartite_by_side": Pairs("sequence", once=True, order="sides"),
    "checkerboard": Pairs("snake"),
}
