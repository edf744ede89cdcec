"""Schedules found on a model: for a share of FLOPs, and for a speed measured on this machine."""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from skimba.cost.flops import count_flops
from skimba.cost.timing import speedup, take_turns
from skimba.models import Reducer, TokenModel, with_reducer
from skimba.pruning.change import changes
from skimba.pruning.schedule import Amount, Schedule, Share, counts_left

TOLERANCE = 1e-3  # of a share that is searched for
ATTEMPTS = 8  # of the search for a speed
WITHIN, ACCEPTED = 0.02, 0.05  # of the target: where it stops; what it takes when the attempts are over
ROUNDS, LEAST_TIME_S = 31, 1.0  # of one measurement: on a shared machine the median of 15 was off by up to 9 %


class OutOfReachError(ValueError):
    """A method cannot remove as much as a target asks for."""


@dataclass(frozen=True)
class Measured:
    """The measured result of a schedule that was found, on the model and the machine that it was found on.

    Attributes:
        flops_share: of the dense model's exact FLOPs; None where they were not counted.
        speedup: how many times faster than the dense model; None where nothing was timed.
        time_ms: of one batch; None where nothing was timed.
        batch_size: images at a time, as timed.
    """

    flops_share: float | None
    speedup: float | None = None
    time_ms: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Search:
    """The ingredients of a search for a schedule.

    Attributes:
        model: pruned or not; the dense model is what is compared with.
        reducer: the method, given its schedule.
        least: the smallest share that the method may keep at a stage.
        images: ``(b c height width)``: FLOPs are counted on these instead of on shapes alone.
        counted: shares of FLOPs by schedule, so far.
    """

    model: TokenModel
    reducer: Callable[[Schedule], Reducer]
    least: float
    images: Tensor | None = None
    counted: dict[tuple[tuple[int, Amount], ...], float] = field(default_factory=dict, init=False)

    @cached_property
    def dense_flops(self) -> int:
        return count_flops(with_reducer(self.model, None), convention="exact").total

    def pruned(self, schedule: Schedule) -> TokenModel:
        return with_reducer(self.model, self.reducer(schedule))

    def flops_share(self, schedule: Schedule) -> float:
        """Exact FLOPs under that schedule, as a share of the dense model's; each schedule is counted once."""
        key = tuple(schedule.items())
        if key not in self.counted:
            total = count_flops(self.pruned(schedule), convention="exact", images=self.images).total
            self.counted[key] = total / self.dense_flops
        return self.counted[key]

    def tokens_seen(self, schedule: Schedule) -> int:
        """Image tokens that the blocks see, all together, where counts do not depend on the image: FLOPs grow with them."""
        first, depth = math.prod(self.model.grid), len(self.model.layers)
        left = {0: first, **counts_left(schedule, first, self.model.class_token_count > 0), depth: 0}
        return sum(count * (end - block) for (block, count), end in zip(left.items(), [*left][1:], strict=False))

    def at(self, stages: tuple[int, ...], target: float) -> Schedule:
        """The schedule at ``stages`` whose exact FLOPs are ``target`` (0 … 1) of the dense model's, or just below.

        Raises:
            OutOfReachError: not even with the least kept at each stage.
        """

        def flops(share: float) -> float:
            return self.flops_share(same_share(stages, share))

        def size(share: float) -> float:
            return self.tokens_seen(same_share(stages, share))

        return same_share(stages, share_for_flops(flops, target, self.least, size))


def same_share(stages: tuple[int, ...], share: float) -> Schedule:
    """The same share at every stage."""
    return dict.fromkeys(stages, Share(share))


def share_for_flops(
    flops: Callable[[float], float], target: float, least: float, size: Callable[[float], float]
) -> float:
    """The share to keep at each stage so that ``flops(share)``, a share of the dense model's, comes to ``target`` at most.

    It is the largest such share on a grid as fine as :data:`TOLERANCE`, found by the secant method over ``size`` in about four
    evaluations where halving takes eleven; it halves where the line through the last two leads nowhere, or slowly.

    Args:
        flops: grows with the share kept; 1 at share 1.
        target: in (0, 1).
        least: the smallest share that the method can keep at a stage.
        size: costs nothing, grows with the share kept, and determines the FLOPs, which are about linear in it.

    Raises:
        OutOfReachError: not even ``least`` gets there.
    """
    if (reached := flops(least)) > target:
        raise OutOfReachError(
            f"this method at these stages comes down to {reached:.3f} of the FLOPs, got target {target}"
        )
    steps = 2 ** max(math.ceil(math.log2((1 - least) / TOLERANCE)), 0)
    largest = {size(share): share for share in (least + (1 - least) * step / steps for step in range(steps))}
    sizes, shares = list(largest), list(largest.values())
    low, high = 0, len(shares)  # within the target; not
    points = [(size(1.0), 1.0), (size(least), reached)]
    while high - low > 1:
        (size_0, flops_0), (size_1, flops_1) = points[-2:]
        if len(points) % 5 and flops_0 != flops_1:
            wanted = size_1 + (target - flops_1) * (size_1 - size_0) / (flops_1 - flops_0)
            place = min(max(bisect.bisect_right(sizes, wanted) - 1, low + 1), high - 1)
        else:
            place = (low + high) // 2
        points.append((sizes[place], flops(shares[place])))
        low, high = (place, high) if points[-1][1] <= target else (low, place)
    return shares[low]


def calibrate(search: Search, target: float, images: Tensor) -> tuple[int, ...]:
    """Of the sets of stages that all reach ``target``, the one that changes the model's answers least (:mod:`.change`).

    Args:
        images: ``(b c height width)`` normalised, no labels: a few hundred; for feature maps of large pictures ten will do.

    Raises:
        OutOfReachError: none reaches it.
    """
    schedules: dict[tuple[int, ...], Schedule] = {}
    for stages in stage_sets(len(search.model.layers)):
        try:
            schedules[stages] = search.at(stages, target)
        except OutOfReachError:
            continue  # too few stages for this target
    if not schedules:
        raise OutOfReachError(f"no schedule of this method comes down to {target} of the FLOPs")
    pruned = [search.pruned(schedule) for schedule in schedules.values()]
    found = changes(with_reducer(search.model, None), pruned, images)
    return min(zip(found, schedules, strict=True))[1]


def stage_sets(depth: int) -> list[tuple[int, ...]]:
    """The sets of stages that :func:`calibrate` tries: from an early block on, one to six stages, close or spread."""
    starts = {max(depth * eighth // 8, 1) for eighth in (1, 2, 3)}
    distances = {max(depth * eighth // 8, 1) for eighth in (1, 2)}
    sets = {
        tuple(range(start, start + distance * number, distance))
        for start in starts
        for distance in distances
        for number in (1, 2, 3, 4, 6)
    }
    return sorted(stages for stages in sets if stages[-1] < depth) or [(depth,)]


@dataclass(frozen=True)
class Goal:
    """A speed to reach.

    Attributes:
        asked: in words, for messages: ``"speed-up 1.5"``.
        factor: how many times faster than dense that is, as far as is known before the search.
        reached: of a measurement: 1 is the speed asked for, more is faster.
        told: the measurement in the goal's own unit, in words.
    """

    asked: str
    factor: float
    reached: Callable[[Measured], float]
    told: Callable[[Measured], str]


def schedule_for_speed(
    search: Search, stages: tuple[int, ...], goal: Goal, images: Tensor
) -> tuple[Schedule, Measured]:
    """The schedule that makes the model as fast as asked for, on this machine, on batches like ``images``.

    Args:
        images: one batch ``(b c height width)``; only its shape matters.

    Raises:
        OutOfReachError: not even the least that the method can keep is that fast, or the speed was not found.
    """
    dense, least = with_reducer(search.model, None), same_share(stages, search.least)
    share = 1 / goal.factor
    attempts: list[tuple[float, Schedule, Measured]] = []  # with the distance from the goal
    for _ in range(ATTEMPTS):
        try:
            schedule = search.at(stages, share)
        except OutOfReachError:
            schedule = least
        pruned = search.pruned(schedule)
        timed = measure(dense, pruned, images)
        if (
            abs(goal.reached(timed) - 1) <= WITHIN
        ):  # again, since a search stops at whatever measurement errs in its favour
            timed = _mean(timed, measure(dense, pruned, images))
        reached = goal.reached(timed)
        attempts.append((abs(reached - 1), schedule, timed))
        if attempts[-1][0] <= WITHIN:
            break
        if schedule == least and reached < 1 - ACCEPTED:
            shares = dict.fromkeys(stages, search.least)
            raise OutOfReachError(
                f"{goal.asked} is out of reach: the least that this method can keep, {shares}, makes {goal.told(timed)}"
            )
        share = min(share * reached, 0.999)
    distance, schedule, nearest = min(attempts, key=lambda attempt: attempt[0])
    if distance <= ACCEPTED:
        return schedule, nearest
    last = attempts[-1][2]
    raise OutOfReachError(
        f"{goal.asked} is out of reach: {goal.told(last)} was measured last, at {share:.2f} of the FLOPs"
    )


def measure(dense: TokenModel, pruned: TokenModel, images: Tensor) -> Measured:
    """Time of the pruned model, and how many times faster it is: medians over rounds in which both run in turn."""
    modes = [(model, model.training) for model in (dense, pruned)]
    runs = [partial(model.eval(), images) for model, _ in modes]
    with torch.inference_mode():
        times = take_turns(dict(enumerate(runs)), ROUNDS, LEAST_TIME_S)
    for model, training in modes:
        model.train(training)
    return Measured(None, speedup(times[0], times[1]), 1e3 * statistics.median(times[1]), len(images))


def _mean(one: Measured, other: Measured) -> Measured:
    speed, time_ms = ((one.speedup or 0) + (other.speedup or 0)) / 2, ((one.time_ms or 0) + (other.time_ms or 0)) / 2
    return replace(one, speedup=speed, time_ms=time_ms)
