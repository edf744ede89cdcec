"""How far a pruned model's answers are from the dense model's, on images without labels.

A classifier answers by its logits. A model without a head (the backbone of a detector or segmenter, or ``num_classes=0``) answers
by its feature maps, restored to the full grid: their mean would hide what happens at single positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.models import TokenModel
from skimba.models.evaluation import evaluating

BATCH, MAP_BATCH = 64, 1  # images at a time: maps of large pictures are large
Answer = Sequence[Tensor]


def changes(dense: TokenModel, candidates: Sequence[TokenModel], images: Tensor) -> list[float]:
    """Of each candidate the mean change over the images; 0: none.

    Args:
        dense: the model that all candidates are pruned versions of.
        images: ``(b c height width)`` normalised.

    Returns:
        The Kullback-Leibler divergence of the class probabilities; of a model without a head, for each map
        ``|found - wanted|² / |wanted|²``, the mean over the maps.
    """
    answer, change, size = (_logits, _divergence, BATCH) if dense.num_classes else (_maps, _map_change, MAP_BATCH)
    totals = [0.0] * len(candidates)
    for batch in images.to(next(dense.parameters()).device).split(size):
        wanted = _answer(dense, answer, batch)
        for number, candidate in enumerate(candidates):
            totals[number] += change(_answer(candidate, answer, batch), wanted)
    return [total / len(images) for total in totals]


def _answer(model: TokenModel, answer: Callable[[TokenModel, Tensor], Answer], images: Tensor) -> Answer:
    with evaluating(model), torch.inference_mode():
        return [x.float() for x in answer(model, images)]


def _logits(model: TokenModel, images: Tensor) -> Answer:
    return [model(images)]


def _maps(model: TokenModel, images: Tensor) -> Answer:
    return model.forward_maps(images)


def _divergence(found: Answer, wanted: Answer) -> float:
    (got,), (asked,) = found, wanted
    return F.kl_div(got.log_softmax(-1), asked.log_softmax(-1), reduction="sum", log_target=True).item()


def _map_change(found: Answer, wanted: Answer) -> float:
    """Summed over the images, so that each counts the same whatever the norm of its maps."""
    parts = [
        (got - asked).square().flatten(1).sum(1) / asked.square().flatten(1).sum(1)
        for got, asked in zip(found, wanted, strict=True)
    ]
    return torch.stack(parts).mean(0).sum().item()
