"""After which blocks tokens go, and how many stay: ``{block: share or count}``; and the schedules that need no search."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skimba.models import TokenModel
from skimba.pruning.choices import choose

COUNT_STEP = 4  # counts of single images are rounded up to multiples, so that a batch falls into few groups


class Amount(ABC):
    """How many image tokens a stage leaves."""

    @abstractmethod
    def left(self, present: int, first: int, has_extra: bool) -> int:
        """Image tokens that stay.

        Args:
            present: that are there.
            first: that were there before the first block.
            has_extra: whether the sequence holds a class token or registers too.
        """

    @property
    def removes(self) -> bool:
        """Whether any tokens go."""
        return True

    @abstractmethod
    def plain(self) -> Any:
        """As JSON and TOML hold it."""


@dataclass(frozen=True)
class Share(Amount):
    """A share in (0, 1] of the tokens that are there; a plain number in a schedule (see :func:`stage_count`)."""

    share: float

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def removes(self) -> bool:
        return self.share < 1

    def left(self, present: int, first: int, has_extra: bool) -> int:
        return stage_count(present, self.share, has_extra)

    def plain(self) -> float:
        return self.share


@dataclass(frozen=True)
class Count(Amount):
    """This many tokens stay, odd or even; all, if there are no more. A plain whole number from 2 on in a schedule."""

    tokens: int

    def __post_init__(self) -> None:
        _check_tokens(self.tokens, "Count")

    def left(self, present: int, first: int, has_extra: bool) -> int:
        return min(self.tokens, present)

    def plain(self) -> dict[str, int]:
        return {"count": self.tokens}


@dataclass(frozen=True)
class Remove(Amount):
    """So many tokens go, but never more than half of those that are there, which is all that one matching of pairs can take out
    (ToMe's r, arXiv 2210.09461). R-MeeTo's schedule (arXiv 2412.12496): ``dict.fromkeys(range(2, 24, 2), Remove(11))``.
    """

    tokens: int

    def __post_init__(self) -> None:
        _check_tokens(self.tokens, "Remove")

    def left(self, present: int, first: int, has_extra: bool) -> int:
        return present - min(self.tokens, present // 2)

    def plain(self) -> dict[str, int]:
        return {"remove": self.tokens}


@dataclass(frozen=True)
class OfFirst(Amount):
    """A share in (0, 1] of the tokens before the first block, rounded down, as DyVM (arXiv 2504.04787) counts."""

    share: float

    def __post_init__(self) -> None:
        _check_share(self.share)

    def left(self, present: int, first: int, has_extra: bool) -> int:
        return min(max(math.floor(self.share * first + 1e-9), 1), present)

    def plain(self) -> dict[str, float]:
        return {"of_first": self.share}


Schedule = dict[int, Amount]


def _check_share(share: Any) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"a schedule needs shares in (0, 1], got {share!r}")


def _check_tokens(tokens: Any, what: str) -> None:
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"{what} takes a whole number of tokens from 1 on, got {tokens!r}")


def stage_count(present: int, share: float, has_extra: bool) -> int:
    """Image tokens that stay of ``present``: ``ceil(share · present)``; with a middle class token the largest even number not
    above it (the published token counts of Vim: 196 → 156 → 124 → 100), but at least one pair.
    """
    if share == 1:
        return present
    count = max(math.ceil(share * present - 1e-9), 1)  # 0.55 · 100 must not become 56
    if has_extra:
        count = max(count // 2 * 2, min(2, present))
    return count


def read_schedule(given: Mapping[Any, Any], depth: int) -> Schedule:
    """A schedule from what a user or a file gives: blocks from 1 on (as text too), numbers or amounts.

    Args:
        depth: blocks of the model.

    Raises:
        ValueError: a block that the model does not have, twice the same, or an amount that is none.
    """
    found: Schedule = {}
    for key, value in given.items():
        block = int(key) if isinstance(key, str) and key.isdecimal() else key  # JSON and TOML know only text keys
        if isinstance(block, bool) or not isinstance(block, int) or not 1 <= block <= depth:
            raise ValueError(f"a schedule counts blocks from 1 to {depth} (the model's depth), got {key!r}")
        if block in found:
            raise ValueError(f"the schedule has block {block} twice")
        try:
            found[block] = read_amount(value)
        except ValueError as error:
            raise ValueError(f"{error} after block {block}") from None
    if not found:
        raise ValueError("an empty schedule removes nothing; skimba.unprune(model) is the dense model")
    return dict(sorted(found.items()))


def read_amount(given: Any) -> Amount:
    """A share up to 1, a whole number from 2 on as a count, an amount, or one as plain data."""
    if isinstance(given, Amount):
        return given
    if isinstance(given, Mapping):
        if len(given) != 1 or (kind := next(iter(given))) not in AMOUNTS:
            raise ValueError(f"an amount is a table with one of {', '.join(AMOUNTS)}, got {dict(given)!r}")
        return AMOUNTS[kind](given[kind])
    if isinstance(given, int) and not isinstance(given, bool) and given > 1:
        return Count(given)
    _check_share(given)
    return Share(given)


def counts_left(schedule: Schedule, first: int, has_extra: bool) -> dict[int, int]:
    """Image tokens after each stage of a schedule."""
    present, found = first, {}
    for block, amount in schedule.items():
        present = found[block] = amount.left(present, first, has_extra)
    return found


def mass_counts(weight: Tensor, share: float) -> Tensor:
    """The fewest tokens that hold that share of their image's whole weight ``(b m)``, which is not negative (top-p): ``(b)``."""
    descending = weight.double().sort(dim=1, descending=True).values.cumsum(1)
    return (descending < share * descending[:, -1:] * (1 - 1e-9)).sum(1) + 1


def paper_schedule(model: TokenModel) -> dict[int, float]:
    """The paper's schedule for a model: ``{blocks: share kept}``; where no paper has one, 0.8 after each quarter of its depth."""
    if model.paper_schedule is not None:
        return dict(model.paper_schedule)
    return dict.fromkeys(_quarters(len(model.layers)), 0.8)


def read_stages(given: Any) -> str | tuple[int, ...]:
    """A key of :data:`STAGES`, or block numbers in order.

    Raises:
        ValueError, TypeError: neither.
    """
    if isinstance(given, str):
        choose(STAGES, given, "stages")
        return given
    if not isinstance(given, list | tuple) or not given:
        raise TypeError(f"stages are block numbers or one of {', '.join(STAGES)}, got {given!r}")
    if wrong := [block for block in given if isinstance(block, bool) or not isinstance(block, int) or block < 1]:
        raise ValueError(f"stages are block numbers from 1 on, got {wrong[0]!r}")
    return tuple(sorted(set(given)))


def stage_blocks(stages: str | tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The block numbers of stages in a model of so many blocks."""
    return STAGES[stages](depth) if isinstance(stages, str) else stages


def _quarters(depth: int) -> tuple[int, ...]:
    quarter = max(depth // 4, 1)
    return tuple(b for b in (quarter, 2 * quarter, 3 * quarter) if b < depth) or (depth,)


def _early(depth: int) -> tuple[int, ...]:
    """After 1/8 and 3/8 of the depth: what goes early saves most."""
    return tuple(sorted({max(depth * eighth // 8, 1) for eighth in (1, 3)}))


def _first(depth: int) -> tuple[int, ...]:
    """After 1/8 of the depth, all at once."""
    return (max(depth // 8, 1),)


def _every(depth: int) -> tuple[int, ...]:
    return tuple(range(1, depth)) or (depth,)


def _even(depth: int) -> tuple[int, ...]:
    return tuple(range(2, depth, 2)) or (depth,)


AMOUNTS: dict[str, Callable[[Any], Amount]] = {"share": Share, "count": Count, "remove": Remove, "of_first": OfFirst}
COUNTS: dict[str, Callable[[Tensor, float], Tensor]] = {"mass": mass_counts}  # of each image by its own weights
STAGES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "quarters": _quarters,
    "early": _early,
    "first": _first,
    "every": _every,
    "even": _even,
}
