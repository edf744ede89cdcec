"""``prune`` and ``unprune``: a model and its pruned twin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from skimba.dense.model import DenseModel, tokens_of, with_inner_reducer
from skimba.layers.correction import Correction
from skimba.models import TokenModel
from skimba.pruning.calibration import Measured, Search
from skimba.pruning.method import Method, find_method
from skimba.pruning.pruner import Pruner
from skimba.pruning.schedule import Amount, Schedule, Share, counts_left, paper_schedule, read_schedule
from skimba.pruning.targets import Target

Model = TypeVar("Model", bound=TokenModel | DenseModel)


def prune(
    model: Model,
    method: Method | str = "hold",
    schedule: Mapping[int, float | Amount] | Target | None = None,
    *,
    seed: int = 0,
) -> Model:
    """The same model, sharing its weights, with tokens removed between its blocks. The model given stays as it is.

    Args:
        model: a skimba model, or a detector or segmenter, whose backbone is pruned; pruned before or not.
        method: a key of ``skimba.METHODS`` (``"hold"``: ours, pairs merge and every position keeps an owner; ``"top"``: the
            paper's) or a ``skimba.Method``: ``Method(Merge(score="l2"), align=HOLD)``, ``replace(METHODS["hold"], …)``.
        schedule: what stays after which blocks (from 1 on): ``{5: 0.7, 10: 0.7}``, shares of the image tokens that are there,
            or whole numbers, ``Count``, ``Remove``, ``OfFirst``; or a target (of the backbone): ``Flops(0.6)``,
            ``Speedup(1.5, batch_size=8)``, ``Milliseconds(20)``; None: the paper's schedule for the model.
        seed: for random scores, and for learned ones before their training.

    Returns:
        The pruned model. ``print`` shows how; ``.reducer`` has ``method``, ``schedule``, ``measured`` (what a target came to)
        and ``to_dict()``. :func:`unprune` gives the dense model back.

    Raises:
        TypeError: not a skimba model, or an argument of another kind.
        ValueError: an unknown name, a block that the model does not have, an amount out of range, or a target out of reach.

    Example:
        ``skimba.prune(model, "top", Flops(0.6))``
    """
    if not isinstance(model, TokenModel | DenseModel):
        raise TypeError(f"prune needs a skimba model, got {type(model).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is a whole number, got {seed!r}")
    method = find_method(method)
    model = with_correction(model, wanted=False)
    tokens = tokens_of(model)
    amounts, measured = _find_schedule(tokens, method, schedule, seed)
    return with_inner_reducer(model, Pruner.of(tokens, amounts, method, seed, measured))


def unprune(model: Model) -> Model:
    """The dense model of a pruned one, sharing its weights. The model given stays pruned.

    Raises:
        TypeError: not a skimba model.
    """
    if not isinstance(model, TokenModel | DenseModel):
        raise TypeError(f"unprune needs a skimba model, got {type(model).__name__}")
    return with_inner_reducer(with_correction(model, wanted=False), None)


def with_correction(model: Model, wanted: bool) -> Model:
    """A model on the same weights with a correction of its own, not set yet, or without; detectors and segmenters have none."""
    if not isinstance(model, TokenModel) or (model.correction is None and not wanted):
        return model
    twin = with_inner_reducer(model, model.reducer)
    like, width = next(model.parameters()), model.head_hidden_size
    own = Correction(width, width, device=like.device, dtype=like.dtype).train(model.training) if wanted else None
    twin.correction = own
    return twin


def _find_schedule(model: TokenModel, method: Method, schedule: Any, seed: int) -> tuple[Schedule, Measured | None]:
    if isinstance(schedule, Target):
        search = Search(model, lambda amounts: Pruner.of(model, amounts, method, seed), least=0.0)
        return schedule.find(search, method)
    if schedule is None:
        schedule = paper_schedule(model)
    if not isinstance(schedule, Mapping):
        hint = "; a share of the FLOPs is skimba.Flops(share)" if isinstance(schedule, float) else ""
        raise TypeError(
            f"a schedule is {{block: share}}, Flops(…), Speedup(…), Milliseconds(…) or None, got {schedule!r}{hint}"
        )
    amounts = read_schedule(schedule, len(model.layers))
    _check_amounts(model, method, amounts)
    return amounts, None


def _check_amounts(model: TokenModel, method: Method, amounts: Schedule) -> None:
    """Raise ValueError where the method cannot do what a stage asks for."""
    if method.counts is not None:
        if own := [block for block, amount in amounts.items() if not isinstance(amount, Share)]:
            raise ValueError(
                f"with counts a schedule has shares of the weight only, got {amounts[own[0]]} after block {own[0]}"
            )
        return
    least, present = method.part.least_share, math.prod(model.grid)
    for block, count in counts_left(amounts, present, model.class_token_count > 0).items():
        amount = amounts[block]
        short = amount.share < least if isinstance(amount, Share) else count < int(least * present)
        if short:
            raise ValueError(
                f"{method.part} removes at most half of the tokens at one stage: keep at least {least}, got {amount} after "
                f"block {block}; spread it over two stages"
            )
        present = count
