"""The study behind docs/results.md: every method on the embedded models' test images, without training and after fine-tuning.

    python -m benchmarks.study --part methods --part ablations --part sweep --part scenes --part families --part fine-tuning \
        --part full-pass --part speed

Each finished run is a line of docs/results.jsonl and is not repeated: a killed study goes on where it stopped. On two cores,
one process for each model, the parts take about 60, 40, 20, 25, 30, 60, 60 and 5 minutes. `python -m benchmarks.report` writes
the page. Runs with `hold 0.1` in their name, or `first order`, hold as skimba 0.1 did.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.compared import (
    ABLATIONS,
    CALIBRATED,
    CLIP_REDUCTIONS,
    FAMILY,
    FAMILY_REDUCTIONS,
    FINE_TUNED,
    FINE_TUNING,
    FINE_TUNING_IMAGES,
    FULL_PASS,
    KEPT,
    METHODS,
    REDUCTIONS,
    REFITTED,
    REFITTING_IMAGES,
    RENAMED,
    SEEDS,
    STAGES,
    SWEPT,
    TRAINED,
    Pruning,
)
from benchmarks.running import do_parts, read_lines
from benchmarks.subjects import SUBJECTS, dense, images, test_batches, train_batches
from skimba.cost.flops import count_flops
from skimba.models import TokenModel
from skimba.models.evaluation import predict
from skimba.pruning import Flops, Method, Pruner, prune, refit
from skimba.pruning.calibration import measure
from skimba.training import Recipe, train

RESULTS = Path(__file__).parent.parent / "docs" / "results.jsonl"
MODELS = ("vim_micro", "plain_mamba_micro")
SCENE_MODELS = ("vim_micro_patch4_56", "plain_mamba_micro_patch4_56")
FURTHER = tuple(name for name in SUBJECTS if name not in MODELS + SCENE_MODELS)  # families, seeds, a harder set


@dataclass(frozen=True)
class Run:
    """One line of the results: what is done, and what of it is unlike other runs.

    ``reduction`` is of the exact FLOPs; in the part ``sweep`` it is of the tokens, after each of the blocks 2, 4 and 6.
    """

    part: str
    model: str
    method: str
    reduction: float | None = None
    seed: int = 0


def methods() -> Iterator[Run]:
    for model in MODELS:
        yield Run("methods", model, "dense")
        for reduction in (0.4, 0.3, 0.2, 0.5):  # the bars first
            yield from (Run("methods", model, method, reduction) for method in METHODS)


def ablations() -> Iterator[Run]:
    for model in MODELS:
        yield from (Run("ablations", model, method) for method in ABLATIONS)


def sweep() -> Iterator[Run]:
    for model in MODELS:
        for kept in KEPT:
            yield from (Run("sweep", model, method, round(1 - kept, 2)) for method in SWEPT)


def scenes() -> Iterator[Run]:
    for model in SCENE_MODELS:
        yield Run("scenes", model, "dense")
        for reduction in (0.4, 0.3):
            yield from (Run("scenes", model, method, reduction) for method in METHODS)


def families() -> Iterator[Run]:
    for model in FURTHER:
        clips = SUBJECTS[model].data == "clips"
        methods = [method for method in FAMILY if clips or method != "hold_clips"]
        yield Run("families", model, "dense")
        for reduction in CLIP_REDUCTIONS if clips else FAMILY_REDUCTIONS:
            yield from (Run("families", model, method, reduction) for method in methods)


def fine_tuning() -> Iterator[Run]:
    for seed in SEEDS:
        for model in MODELS:
            yield from (Run("fine-tuning", model, method, 0.4, seed) for method in FINE_TUNED)


def full_pass() -> Iterator[Run]:
    """One pass over all 60,000 training images: three seeds of our best, one of what it is compared with."""
    for model in MODELS:
        for method in ("hold + teacher", "hold 0.1 + teacher"):
            yield from (Run("full-pass", model, method, 0.4, seed) for seed in SEEDS)
        yield from (Run("full-pass", model, method, 0.4) for method in ("dense", "top", "condensed"))


def speed() -> Iterator[Run]:
    for model in MODELS:
        for reduction in REDUCTIONS:
            yield from (Run("speed", model, method, reduction) for method in METHODS)


def pruning(run: Run) -> Pruning:
    """Method and schedule of a run."""
    if run.part == "ablations":
        return ABLATIONS[run.method]
    assert run.reduction is not None
    if run.part == "sweep":
        return SWEPT[run.method], dict.fromkeys(STAGES, 1 - run.reduction)
    count = CALIBRATED.get(run.method)
    few = None if count is None else images(run.model, "train")[:count].normalised()
    return method_of(run), Flops(1 - run.reduction, images=few)


def method_of(run: Run) -> Method:
    """Its method, with a teacher or without."""
    return {**METHODS, **FAMILY, **TRAINED}[run.method.removesuffix(" + teacher")]


def pruned(run: Run) -> TokenModel:
    if run.method == "dense":
        return dense(run.model)
    model = prune(dense(run.model), *pruning(run))
    return refit(model, train_batches(run.model, REFITTING_IMAGES)) if run.method.endswith(REFITTED) else model


def evaluate(run: Run) -> dict[str, Any]:
    """Accuracy; and of how many of the ``images`` the answer is right before pruning alone (``lost``), and after it alone."""
    model = pruned(run)
    found, before = correct(model, run.model), dense_correct(run.model)
    changed = {"lost": int((before & ~found).sum()), "gained": int((found & ~before).sum()), "images": len(found)}
    return {**cost(run, model), "accuracy": found.double().mean().item(), **changed}


def correct(model: TokenModel, name: str) -> Tensor:
    """``(b)`` for every test image whether its class has the largest logit."""
    logits, labels = predict(model, test_batches(name))
    return logits.argmax(-1) == labels


@cache
def dense_correct(model: str) -> Tensor:
    return correct(dense(model), model)


def fine_tune(run: Run) -> dict[str, Any]:
    model, train_set = pruned(run), images(run.model, "train")
    arguments = model.reducer.to_dict() if isinstance(model.reducer, Pruner) else None
    if run.part == "fine-tuning":
        order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0))
        train_set = train_set[order[:FINE_TUNING_IMAGES]]
    settings = FULL_PASS if run.part == "full-pass" else FINE_TUNING
    recipe = Recipe(run.model, prune=arguments, seed=run.seed, **FINE_TUNED[run.method], **settings)
    with tempfile.TemporaryDirectory() as folder:
        found = train(recipe, train_set, images(run.model, "test"), folder)
    return {**cost(run, model), "accuracy": found["top1"]}


def time_it(run: Run) -> dict[str, Any]:
    model, batch = pruned(run), images(run.model, "test")[:50].normalised()
    return {**cost(run, model), "speedup": measure(dense(run.model), model, batch).speedup}


def cost(run: Run, model: TokenModel) -> dict[str, Any]:
    """Share of the dense model's exact FLOPs, and the schedule."""
    whole = count_flops(dense(run.model), convention="exact").total
    share = count_flops(model, convention="exact").total / whole
    return {"exact_share": share, "keep": schedule(model)}


def schedule(model: TokenModel) -> dict[int, float]:
    return dict(model.reducer.schedule) if isinstance(model.reducer, Pruner) else {}


PARTS: dict[str, tuple[Callable[[], Iterator[Run]], Callable[[Run], dict[str, Any]]]] = {
    "methods": (methods, evaluate),
    "ablations": (ablations, evaluate),
    "sweep": (sweep, evaluate),
    "scenes": (scenes, evaluate),
    "families": (families, evaluate),
    "fine-tuning": (fine_tuning, fine_tune),
    "full-pass": (full_pass, fine_tune),
    "speed": (speed, time_it),
}


def read_results() -> list[dict[str, Any]]:
    """All finished runs, by the names that methods have now."""
    return [{**line, "method": RENAMED.get(line["method"], line["method"])} for line in read_lines(RESULTS)]


def main(given: list[str] | None = None) -> None:
    do_parts(PARTS, Run, RESULTS, read_results, __doc__, given)


if __name__ == "__main__":
    main()
