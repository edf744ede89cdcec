"""The study of dense tasks: AP and mIoU of detectors and segmenters of fashion scenes, pruned without training.

    python -m benchmarks.dense_study --part detection --part segmentation --part time

As benchmarks/study.py: finished runs are lines of docs/dense_results.jsonl and are not repeated; `python -m benchmarks.report`
writes the page. The weights are those in the package (`pretrained="scenes"`). The part `time` wants a machine that
does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.running import Part, do_parts, read_lines
from benchmarks.storm import InsideBlocks
from skimba.cost.flops import count_flops
from skimba.cost.timing import speedup, take_turns
from skimba.data import Pictures
from skimba.data.dense_opening import open_maps, open_objects
from skimba.dense import DenseModel, mask_rcnn, upernet
from skimba.dense.model import with_inner_reducer
from skimba.pruning import METHODS as NAMED
from skimba.pruning import Drop, Flops, Method, prune
from skimba.tasks import task_of
from skimba.tasks.running import predict_all
from skimba.tokens import HOLD, RESTORE

RESULTS = Path(__file__).parent.parent / "docs" / "dense_results.jsonl"
MODELS = ("plain_mamba_micro", "vim_micro")
REDUCTIONS = (0.4, 0.2)  # of the backbone's exact FLOPs
DEFAULT = "last"  # restore
METHODS = {
    name: NAMED[name] for name in ("hold", "top", "condensed", "r_meeto", "tome", "mtr", "tor", "local", "random")
}
STORM = {"storm": InsideBlocks(), "storm + hold": InsideBlocks(NAMED["hold"].part, HOLD)}
TIMED = ("hold", "top", "condensed", "r_meeto")
ROUNDS, TIMED_PICTURES = 15, 4
MAKE: dict[str, Callable[..., DenseModel]] = {"detection": mask_rcnn, "segmentation": upernet}
OPEN: dict[str, Callable[..., Pictures]] = {"detection": open_objects, "segmentation": open_maps}
FIGURES = {"detection": ("box_ap", "box_ap50", "mask_ap", "mask_ap50"), "segmentation": ("miou", "pixel_accuracy")}


@dataclass(frozen=True)
class Run:
    """One line of the results.

    Attributes:
        task: a key of MAKE.
        method: ``"dense"``, or a key of METHODS or STORM.
        reduction: of the backbone's exact FLOPs; None where the method has its own.
        restore: what the heads see at a position whose token is gone.
    """

    part: str
    task: str
    model: str
    method: str
    reduction: float | None = None
    restore: str = DEFAULT


def accuracy_runs(task: str) -> Iterator[Run]:
    for model in MODELS:
        yield Run(task, task, model, "dense")
        for reduction in REDUCTIONS:
            yield from (Run(task, task, model, method, reduction) for method in METHODS)
        yield from (Run(task, task, model, method) for method in STORM)
        for method, settings in METHODS.items():
            others = [way for way in RESTORE if way != DEFAULT and (way == "zeros" or leaves_owners(settings))]
            yield from (Run(task, task, model, method, REDUCTIONS[0], way) for way in others)


def leaves_owners(method: Method) -> bool:
    """Whether every position of a token that goes has an owner: what merges leaves one, what is dropped where it must."""
    return method.alignment.needs_owner or not isinstance(method.part, Drop)


def timed_runs() -> Iterator[Run]:
    for task in MAKE:
        for model in MODELS:
            yield from (Run("time", task, model, method, REDUCTIONS[0]) for method in TIMED)


@cache
def dense(task: str, model: str) -> DenseModel:
    return MAKE[task](model, pretrained="scenes").eval()


@cache
def pictures(task: str) -> Pictures:
    """The 1,000 scenes that nothing was trained on."""
    return OPEN[task](None, "test")


def pruned(run: Run) -> DenseModel:
    whole = dense(run.task, run.model)
    if run.method == "dense":
        return whole
    if run.method in STORM:
        found = with_inner_reducer(whole, STORM[run.method])
    else:
        assert run.reduction is not None
        found = prune(whole, METHODS[run.method], Flops(1 - run.reduction))
    found.backbone.restore = run.restore
    return found.eval()


def cost(run: Run, model: DenseModel) -> dict[str, float]:
    """Shares of the dense model's exact FLOPs: of the backbone, and of the whole."""
    of_dense, own = (count_flops(one, convention="exact") for one in (dense(run.task, run.model), model))
    backbone = own.by_part["backbone"] / of_dense.by_part["backbone"]
    return {"backbone_share": backbone, "whole_share": own.total / of_dense.total}


def evaluate(run: Run) -> dict[str, Any]:
    model, test = pruned(run), pictures(run.task)
    task = task_of(model)
    rows, _ = predict_all(task, model, test, batch_size=8)
    figures = task.measure(rows, test)
    return {**cost(run, model), **{name: figures[name] for name in FIGURES[run.task]}, "images": figures["images"]}


def time_it(run: Run) -> dict[str, Any]:
    """How many times as fast as dense the whole model is, heads included, on a few scenes: the median of rounds in turns."""
    model, whole = pruned(run), dense(run.task, run.model)
    side = whole.img_size
    noise = torch.rand(TIMED_PICTURES, whole.backbone.in_chans, *side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        times = take_turns({"dense": partial(whole, noise), "own": partial(model, noise)}, ROUNDS)
    return {**cost(run, model), "speedup": speedup(times["dense"], times["own"])}


PARTS: dict[str, Part] = {
    "detection": (lambda: accuracy_runs("detection"), evaluate),
    "segmentation": (lambda: accuracy_runs("segmentation"), evaluate),
    "time": (timed_runs, time_it),
}


def read_results() -> list[dict[str, Any]]:
    """All finished runs."""
    return read_lines(RESULTS)


def main(given: list[str] | None = None) -> None:
    do_parts(PARTS, Run, RESULTS, read_results, __doc__, given)


if __name__ == "__main__":
    main()
