"""Honest timing: what is compared runs in turn, round after round, so that ratios hold on a machine whose speed drifts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that it took, and what it returned."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def take_turns(
    runs: Mapping[Key, Callable[[], object]],
    rounds: int,
    least_time_s: float = 0.0,
    on_round: Callable[[], None] | None = None,
) -> dict[Key, list[float]]:
    """Seconds of each run in each round.

    Args:
        runs: what takes turns.
        rounds: at least so many, after one that warms up.
        least_time_s: go on until so much time has passed.
        on_round: called after each round, that of warming up too.
    """
    times: dict[Key, list[float]] = {key: [] for key in runs}
    began, number = time.perf_counter(), 0
    while number <= rounds or time.perf_counter() - began < least_time_s:
        for key, run in runs.items():
            seconds, _ = timed(run)
            if number:
                times[key].append(seconds)
        if on_round is not None:
            on_round()
        number += 1
    return times


def speedup(slow: list[float], fast: list[float]) -> float:
    """How many times faster: the median over rounds in which both ran."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))
