"""The demo: accuracy, cost and time of the embedded models, dense and pruned, measured on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from skimba.cost.flops import count_flops
from skimba.cost.timing import speedup, timed
from skimba.data import LabelledImages
from skimba.models import TokenModel
from skimba.models.evaluation import accuracy
from skimba.pruning import prune
from skimba.store import create_model

MODELS = ("vim_micro", "plain_mamba_micro")
Key = TypeVar("Key", bound=Hashable)
STAGES = (2, 4, 6)  # tokens go after these blocks of eight
SHARES = (0.8, 0.7, 0.5)  # kept at each stage
BATCH = 100
# "condensed", the paper's score without its alignment, is what pruning a state space model like a ViT does.
TITLES = {"condensed": "condensed", "top (paper)": "top", "hold (ours)": "hold"}  # methods by their name in the table


@dataclass(frozen=True)
class Measured:
    """A model in a demo's table.

    Attributes:
        method: its name there; ``"dense"`` is the model unpruned.
        accuracy: on the inputs given, in 0 … 1.
        published_gflops, exact_gflops: for one input (see :mod:`skimba.cost.flops`).
        time_ms: for one input in a batch, median over the batches.
        speedup: over the dense model, median over the batches.
    """

    method: str
    accuracy: float
    published_gflops: float
    exact_gflops: float
    time_ms: float
    speedup: float


@dataclass(frozen=True)
class Row(Measured):
    """One line of the demo's table.

    Attributes:
        model: its name.
        keep: share of the tokens that stays at each stage.
    """

    model: str
    keep: float


def variants(model: TokenModel) -> dict[tuple[str, float], TokenModel]:
    """The dense model and its pruned forms, by method and share."""
    found: dict[tuple[str, float], TokenModel] = {("dense", 1.0): model}
    for share in SHARES:
        for title, method in TITLES.items():
            found[title, share] = prune(model, method, dict.fromkeys(STAGES, share))
    return found


def measure(name: str, images: LabelledImages, on_batch: Callable[[], None] | None = None) -> list[Row]:
    """All variants of one embedded model on the same images.

    Each batch goes through every variant in turn, so that the ratios of their times hold on a noisy machine.
    """
    models = variants(create_model(name, pretrained=True).eval())
    logits, times = in_turns(models, (inputs for inputs, _ in images.batches(BATCH)), on_batch)
    dense = times["dense", 1.0]
    return [
        Row(
            model=name,
            method=key[0],
            keep=key[1],
            **figures(model, logits[key], images.labels, times[key], dense),
        )
        for key, model in models.items()
    ]


def figures(
    model: TokenModel, logits: Tensor, labels: Tensor, times: list[float], dense: list[float]
) -> dict[str, float]:
    """What a line of a table says of a model, as :class:`Measured` describes it.

    Args:
        times, dense: seconds of the model and of the dense one (:func:`in_turns`).
    """
    return {
        "accuracy": accuracy(logits, labels),
        "published_gflops": count_flops(model, convention="published").total / 1e9,
        "exact_gflops": count_flops(model, convention="exact").total / 1e9,
        "time_ms": 1e3 * statistics.median(times),
        "speedup": speedup(dense, times),
    }


def in_turns(
    models: Mapping[Key, TokenModel], batches: Iterable[Tensor], on_batch: Callable[[], None] | None = None
) -> tuple[dict[Key, Tensor], dict[Key, list[float]]]:
    """``(b classes)`` logits of each model on all batches, and its seconds for one input, batch by batch."""
    logits: dict[Key, list[Tensor]] = {key: [] for key in models}
    times: dict[Key, list[float]] = {key: [] for key in models}
    with torch.inference_mode():
        for number, inputs in enumerate(batches):
            for key, model in models.items():
                if number == 0:  # warm up
                    model(inputs)
                seconds, found = timed(partial(model, inputs))
                logits[key].append(found)
                times[key].append(seconds / len(inputs))
            if on_batch is not None:
                on_batch()
    return {key: torch.cat(found) for key, found in logits.items()}, times
