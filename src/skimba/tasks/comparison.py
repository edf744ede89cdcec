"""How two models' predictions for the same pictures differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from skimba.tasks.classification import ClassPrediction


@dataclass(frozen=True)
class Comparison:
    """Names of pictures predicted right before and wrong after (``broken``), or the other way round (``mended``)."""

    pictures: int
    agreement: float
    broken: list[str]
    mended: list[str]


def compare(before: Sequence[ClassPrediction], after: Sequence[ClassPrediction]) -> Comparison:
    """Compare two models. Pictures are matched by name, those of the same name by their order.

    Raises:
        ValueError: no predictions, predictions for other pictures, or the same with other labels.
    """
    first, second = _by_name(before), _by_name(after)
    if first.keys() != second.keys():
        odd = sorted(name for name, _ in first.keys() ^ second.keys())
        raise ValueError(
            f"the predictions are for different pictures: {len(odd)} are in one only, for instance {odd[0]}"
        )
    if not first:
        raise ValueError("there are no predictions to compare")
    pairs = [(one, second[key]) for key, one in first.items()]
    if changed := [one.name for one, other in pairs if one.label != other.label]:
        raise ValueError(f"{len(changed)} pictures have another label in the second file, for instance {changed[0]}")
    return Comparison(
        len(pairs),
        sum(a.classes[0] == b.classes[0] for a, b in pairs) / len(pairs),
        [a.name for a, b in pairs if a.correct and not b.correct],
        [a.name for a, b in pairs if b.correct and not a.correct],
    )


def _by_name(predictions: Sequence[ClassPrediction]) -> dict[tuple[str, int], ClassPrediction]:
    """By name and by how many of that name came before."""
    seen: Counter[str] = Counter()
    found = {}
    for one in sorted(predictions, key=lambda one: one.index):
        found[one.name, seen[one.name]] = one
        seen[one.name] += 1
    return found
