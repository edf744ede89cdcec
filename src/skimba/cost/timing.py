"""Timing in turns: the runs to compare alternate, round after round, so that ratios hold on a machine whose speed drifts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds taken, and the result."""
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
        rounds: at least this many, after one warm-up round.
        least_time_s: continue until this much time has passed.
        on_round: called after each round, including the warm-up.
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
