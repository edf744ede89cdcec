"""After which blocks tokens go, and how many: the paper's schedules, and those found for a target."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from skimba.models import TokenModel

TOLERANCE = 1e-3  # of a share found by halving
Keep = dict[int, float]


def stage_count(present: int, share: float, has_class: bool) -> int:
    """Image tokens that stay of ``present``: ``ceil(share · present)``; with a middle class token the largest even number not
    above it (the published token counts of Vim: 196 → 156 → 124 → 100), but at least one pair.
    """
    if share == 1:
        return present
    count = math.ceil(share * present - 1e-9)  # 0.55 · 100 must not become 56
    if has_class:
        count = max(count // 2 * 2, min(2, present))
    return count


def mass_counts(weight: Tensor, share: float) -> Tensor:
    """The fewest tokens that hold that share of their image's whole weight ``(b m)``, which is not negative (top-p): ``(b)``."""
    descending = weight.double().sort(dim=1, descending=True).values.cumsum(1)
    return (descending < share * descending[:, -1:] * (1 - 1e-9)).sum(1) + 1


COUNTS: dict[str, Callable[[Tensor, float], Tensor]] = {"mass": mass_counts}  # by image; "share": one number for all
COUNT_STEP = 4  # counts of single images are rounded up to multiples, so that a batch falls into few groups


def paper_schedule(model: TokenModel) -> Keep:
    """The paper's schedule for a model: ``{blocks: share kept}``; where no paper has one, 0.8 after each quarter of its depth."""
    if model.paper_schedule is not None:
        return dict(model.paper_schedule)
    return dict.fromkeys(_quarters(len(model.layers)), 0.8)


def _quarters(depth: int) -> tuple[int, ...]:
    quarter = max(depth // 4, 1)
    return tuple(b for b in (quarter, 2 * quarter, 3 * quarter) if b < depth) or (depth,)


def _early(depth: int) -> tuple[int, ...]:
    """After 1/8 and 3/8 of the depth: what goes early saves most."""
    return tuple(sorted({max(depth * eighth // 8, 1) for eighth in (1, 3)}))


def _every(depth: int) -> tuple[int, ...]:
    return tuple(range(1, depth)) or (depth,)


def _even(depth: int) -> tuple[int, ...]:
    return tuple(range(2, depth, 2)) or (depth,)


STAGES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "quarters": _quarters,
    "early": _early,
    "every": _every,
    "even": _even,
}


class OutOfReachError(ValueError):
    """A method cannot remove as much as a target asks for."""


def share_for_flops(flops: Callable[[float], float], target: float, least: float) -> float:
    """The share to keep at each stage so that ``flops(share)``, a share of the dense model's, comes to ``target`` at most.

    Args:
        flops: grows with the share kept.
        target: in (0, 1).
        least: the smallest share that the method can keep at a stage.

    Raises:
        OutOfReachError: not even ``least`` gets there.
    """
    low, high = least, 1.0
    if (reached := flops(low)) > target:
        raise OutOfReachError(
            f"this method at these stages comes down to {reached:.3f} of the FLOPs, got target {target}"
        )
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if flops(middle) <= target else (low, middle)
    return low
