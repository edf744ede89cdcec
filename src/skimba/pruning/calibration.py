"""Schedules found on this model, for a target of FLOPs or of measured speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.cost.flops import count_flops
from skimba.cost.timing import speedup, take_turns
from skimba.models import Reducer, TokenModel, with_reducer
from skimba.models.evaluation import predict
from skimba.pruning.schedule import Keep, OutOfReachError, share_for_flops

ReducerOf = Callable[[Keep], Reducer]  # the method, given its schedule
BATCH = 64  # of calibration images
ATTEMPTS = 8  # of the search for a speed-up
WITHIN, ACCEPTED = 0.02, 0.05  # of the target: where it stops; what it takes when the attempts are over
ROUNDS, LEAST_TIME_S = 31, 1.0  # of one measurement: on a shared machine the median of 15 was off by up to 9 %


def keep_for_flops(
    model: TokenModel,
    reducer: ReducerOf,
    stages: tuple[int, ...],
    target: float,
    least: float,
    images: Tensor | None = None,
) -> Keep:
    """The schedule at ``stages`` whose exact FLOPs are ``target`` (0 … 1) of the dense model's, or just below.

    Args:
        images: count on these ``(b c height width)``, where FLOPs depend on the images.

    Raises:
        OutOfReachError: not even with at least ``least`` kept at each stage.
    """
    dense = count_flops(with_reducer(model, None), convention="exact").total

    def flops(share: float) -> float:
        pruned = with_reducer(model, reducer(dict.fromkeys(stages, share)))
        return count_flops(pruned, convention="exact", images=images).total / dense

    return dict.fromkeys(stages, share_for_flops(flops, target, least))


def calibrate(model: TokenModel, reducer: ReducerOf, target: float, least: float, images: Tensor) -> Keep:
    """Of the schedules at various stages that all reach ``target``, the one whose logits stay nearest to the dense model's.

    Args:
        images: ``(b c height width)`` normalised, a few hundred; no labels are asked for.
    """
    wanted = _log_probabilities(with_reducer(model, None), images)
    best: tuple[float, Keep] | None = None
    for stages in stage_sets(len(model.layers)):
        try:
            keep = keep_for_flops(model, reducer, stages, target, least)
        except OutOfReachError:
            continue  # too few stages for this target
        found = _log_probabilities(with_reducer(model, reducer(keep)), images)
        divergence = F.kl_div(found, wanted, reduction="batchmean", log_target=True).item()
        if best is None or divergence < best[0]:
            best = divergence, keep
    if best is None:
        raise OutOfReachError(f"no schedule of this method comes down to {target} of the FLOPs")
    return best[1]


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


def keep_for_speedup(
    model: TokenModel, keep_at: Callable[[float], Keep], least: Keep, reducer: ReducerOf, target: float, images: Tensor
) -> Keep:
    """The schedule that makes the model ``target`` times as fast here and now, on batches like ``images``.

    Args:
        keep_at: the schedule for a share of the FLOPs.
        least: the schedule that leaves least.
        images: one batch ``(b c height width)``; only its shape matters.

    Raises:
        OutOfReachError: not even ``least`` is that fast, or the speed was not found.
    """
    dense, share = with_reducer(model, None), 1 / target
    nearest: tuple[float, Keep] = (float("inf"), {})
    for _ in range(ATTEMPTS):
        try:
            keep = keep_at(share)
        except OutOfReachError:
            keep = least
        pruned = with_reducer(model, reducer(keep))
        reached = measured_speedup(dense, pruned, images)
        if abs(reached / target - 1) <= WITHIN:  # or luck: a search stops at whatever measurement erred its way
            reached = (reached + measured_speedup(dense, pruned, images)) / 2
        nearest = min(nearest, (abs(reached / target - 1), keep), key=lambda found: found[0])
        if nearest[0] <= WITHIN:
            break
        if keep == least and reached < target * (1 - ACCEPTED):
            raise OutOfReachError(
                f"speed-up {target} is out of reach: the least that this method can keep, {least}, makes {reached:.2f}"
            )
        share = min(share * reached / target, 0.999)
    if nearest[0] <= ACCEPTED:
        return nearest[1]
    raise OutOfReachError(
        f"speed-up {target} is out of reach: {reached:.2f} was measured last, at {share:.2f} of the FLOPs"
    )


def measured_speedup(dense: TokenModel, pruned: TokenModel, images: Tensor) -> float:
    """How many times faster the pruned model is: median over rounds in which both run in turn."""
    modes = [(model, model.training) for model in (dense, pruned)]
    runs = [partial(model.eval(), images) for model, _ in modes]  # they share modules: one mode for both
    with torch.inference_mode():
        times = take_turns(dict(enumerate(runs)), ROUNDS, LEAST_TIME_S)
    for model, training in modes:
        model.train(training)
    return speedup(times[0], times[1])


def _log_probabilities(model: TokenModel, images: Tensor) -> Tensor:
    unlabelled = ((batch, torch.empty(len(batch))) for batch in images.split(BATCH))
    return predict(model, unlabelled)[0].log_softmax(-1)
