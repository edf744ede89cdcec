"""The study of dense tasks: AP and mIoU of pruned detectors and segmenters of fashion scenes, without training and after it.

    python -m benchmarks.dense_study --part detection --part segmentation --part fine-tuning --part time

As benchmarks/study.py: finished runs are lines of docs/dense_results.jsonl and are not repeated; the page is written by
`python -m benchmarks.dense_report`. The weights are those in the package (`pretrained="scenes"`); a run names its weights, so
that other weights are measured anew. Most rows are of the first IMAGES scenes, those of CHECKED of all 1,000 too: about ten
minutes for each backbone on one core, and about five for a fine-tuning. The part `time` wants a machine that does nothing
else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.running import Part, do_parts, read_lines
from benchmarks.storm import InsideBlocks
from skimba.cost.flops import FlopCount, count_flops
from skimba.cost.timing import speedup, take_turns
from skimba.data import DEBIAN_FOLDER, Pictures, Selected
from skimba.data.dense_opening import open_maps, open_objects
from skimba.data.dense_reading import PictureReader
from skimba.dense import DenseModel, mask_rcnn, upernet
from skimba.dense.model import with_inner_reducer
from skimba.dense.variants import VARIANTS
from skimba.models.variants import in_package
from skimba.pruning import METHODS as NAMED
from skimba.pruning import Drop, Flops, prune
from skimba.tasks import task_of
from skimba.tasks.resumable import digest_of_model
from skimba.tasks.running import predict_all
from skimba.tokens import HOLD, RESTORE
from skimba.training import Recipe, train

RESULTS = Path(__file__).parent.parent / "docs" / "dense_results.jsonl"
MODELS = ("plain_mamba_micro", "vim_micro")
# Of the backbone's exact FLOPs. Half of PlainMamba micro's are its stem's, which no pruning makes cheaper: -20 % are 38 % of its
# blocks', and few methods reach -40 %. The first is where restores are compared.
REDUCTIONS = (0.2, 0.4, 0.3)
COMPARED = (0.2, 0.4)  # with all methods
METHODS = {name: NAMED[name] for name in ("hold", "top", "condensed", "r_meeto", "tome", "mtr", "tor")}
EVERYWHERE = ("hold", "top", "condensed", "r_meeto")  # at every reduction
RESTORED = ("hold", "top", "condensed", "r_meeto")  # in every way
WAYS = [way for way in RESTORE if way != "auto"]
WITHOUT_OWNERS = ("zeros", "last")
STORM = {"storm": InsideBlocks(), "storm + hold": InsideBlocks(NAMED["hold"].part, HOLD)}
IMAGES = 200  # the first of the 1,000 scenes
ALL = 1000
CHECKED = ("hold", "top", "condensed")  # on all scenes, at the reductions of COMPARED
# What is trained on, with how much of the backbone saved; "dense": what as much training gives the model with all its tokens.
FINE_TUNED = {"hold": COMPARED, "dense": (None,), "top": COMPARED[:1], "condensed": COMPARED[:1]}
FINE_TUNING_SCENES = 3_200  # of the 60,000 training scenes, the first: one pass
FINE_TUNING: dict[str, Any] = {
    "pretrained": "scenes",
    "augmentation": "mirror",
    "batch_size": 16,
    "epochs": 1,
    "learning_rate": 3e-4,
    "dtype": "bf16",
}
CALIBRATED = "hold, calibrated"  # its stages chosen on unlabelled training scenes, the first; on all scenes
CALIBRATION_SCENES = 48
TIMED = EVERYWHERE
ROUNDS, TIMED_PICTURES = 15, 4
MAKE: dict[str, Callable[..., DenseModel]] = {"detection": mask_rcnn, "segmentation": upernet}
OPEN: dict[str, Callable[..., Pictures]] = {"detection": open_objects, "segmentation": open_maps}
FIGURES = {  # of each task, as its results and its tables name them; the first is what methods are compared by
    "detection": {"box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP", "mask_ap50": "mask AP50"},
    "segmentation": {"miou": "mIoU", "pixel_accuracy": "pixels right"},
}


@dataclass(frozen=True)
class Run:
    """One line of the results.

    Attributes:
        task: a key of MAKE.
        method: ``"dense"``, or a key of METHODS or STORM.
        reduction: of the backbone's exact FLOPs; None where the method has its own.
        restore: what the heads see at a position whose token is gone: where it is not what a row compares, :func:`usual`.
        images: the first of the scenes, that figures are of; 0 where only time is measured.
        weights: digest of the dense model's.
    """

    part: str
    task: str
    model: str
    method: str
    reduction: float | None = None
    restore: str = "last"
    images: int = IMAGES
    weights: str = ""


def accuracy_runs(task: str) -> Iterator[Run]:
    for model in models(task):
        found = partial(Run, task, task, model, weights=digest(task, model))
        yield from (found("dense", images=images) for images in (ALL, IMAGES))
        for reduction in REDUCTIONS:
            methods = METHODS if reduction in COMPARED else EVERYWHERE
            yield from (found(method, reduction, usual(method)) for method in methods)
        yield from (found(method) for method in STORM)
        for method in RESTORED:
            yield from (found(method, REDUCTIONS[0], way) for way in other_restores(method))
        for reduction in COMPARED:
            yield from (found(method, reduction, usual(method), images=ALL) for method in (*CHECKED, CALIBRATED))


def other_restores(method: str) -> list[str]:
    """The ways to restore that the method can have, but its usual one."""
    return [way for way in WAYS if way != usual(method) and (way in WITHOUT_OWNERS or leaves_owners(method))]


def usual(method: str) -> str:
    """What the restore ``auto`` is with the method."""
    return "last_plus_change" if leaves_owners(method) else "last"


def leaves_owners(method: str) -> bool:
    """Whether every position of a token that goes has an owner: what merges leaves one, what is dropped where it must."""
    found = METHODS.get(method.split(",")[0])
    return found is not None and (found.alignment.needs_owner or not isinstance(found.part, Drop))


def fine_tunings() -> Iterator[Run]:
    for task in MAKE:
        for model in models(task):
            found = partial(Run, "fine-tuning", task, model, images=ALL, weights=digest(task, model))
            for method, reductions in FINE_TUNED.items():
                yield from (found(method, reduction, usual(method)) for reduction in reductions)


def timed_runs() -> Iterator[Run]:
    for task in MAKE:
        for model in models(task):
            found = partial(Run, "time", task, model, images=0, weights=digest(task, model))
            yield from (found(method, REDUCTIONS[0], usual(method)) for method in TIMED)


def models(task: str) -> list[str]:
    """Those of MODELS whose weights are in the package."""
    variants = VARIANTS[MAKE[task].__name__]
    return [name for name in MODELS if in_package(variants[name].weights["scenes"])]


@cache
def digest(task: str, model: str) -> str:
    """Of the dense model's weights."""
    return digest_of_model(dense(task, model))["weights"][:12]


@cache
def dense(task: str, model: str) -> DenseModel:
    return MAKE[task](model, pretrained="scenes").eval()


@cache
def pictures(task: str) -> Pictures:
    """The 1,000 scenes that nothing was trained on."""
    return OPEN[task](None, "test")


def first_pictures(task: str, count: int) -> Pictures:
    found = pictures(task)
    return Selected(found, range(min(count, len(found))))


def pruned(run: Run) -> DenseModel:
    if run.method == "dense":
        return dense(run.task, run.model)
    found = reduced(run.task, run.model, run.method, run.reduction)
    found.backbone.restore = run.restore
    return found


@cache
def reduced(task: str, model: str, method: str, reduction: float | None) -> DenseModel:
    """Its own backbone, whose restore may be set, on the dense model's weights."""
    whole = dense(task, model)
    if method in STORM:
        return with_inner_reducer(whole, STORM[method]).eval()
    assert reduction is not None
    name, few = method, None
    if method == CALIBRATED:
        name, few = "hold", train_batch(task, model, CALIBRATION_SCENES)
    return prune(whole, METHODS[name], Flops(1 - reduction, images=few)).eval()


@cache
def train_batch(task: str, model: str, count: int) -> Tensor:
    """The first training scenes as a backbone takes them."""
    reader, shown = PictureReader(), training_scenes(task, count)
    return torch.stack([dense(task, model).pictures.normalize(reader.read(shown, i)[0]) for i in range(count)])


def training_scenes(task: str, count: int) -> Pictures:
    """The first of the 60,000."""
    return Selected(OPEN[task](DEBIAN_FOLDER, "train"), range(count))


def cost(run: Run, model: DenseModel) -> dict[str, float]:
    """Shares of the dense model's exact FLOPs: of the backbone, of its blocks alone, and of the whole."""
    of_dense, own = (count_flops(one, convention="exact") for one in (dense(run.task, run.model), model))
    backbone = own.by_part["backbone"] / of_dense.by_part["backbone"]
    blocks = blocks_flops(model, own) / blocks_flops(dense(run.task, run.model), of_dense)
    return {
        "backbone_share": backbone,
        "blocks_share": blocks,
        "whole_share": own.total / of_dense.total,
    }


def blocks_flops(model: DenseModel, count: FlopCount) -> int:
    """Of the backbone without its stem."""
    blocks = next(name for name, module in model.named_modules() if module is model.backbone.layers)
    return sum(flops for name, flops in count.by_module.items() if name.startswith(f"{blocks}."))


def evaluate(run: Run) -> dict[str, Any]:
    model, test = pruned(run), first_pictures(run.task, run.images)
    task = task_of(model)
    rows, _ = predict_all(task, model, test, batch_size=8)
    figures = task.measure(rows, test)
    return {**cost(run, model), **stored(run.task, figures)}


def stored(task: str, figures: dict[str, Any]) -> dict[str, Any]:
    """What of a task's measured figures is a line of the results."""
    return {**{name: figures[name] for name in FIGURES[task]}, "measured": figures["images"]}


def fine_tune(run: Run) -> dict[str, Any]:
    """One pass over scenes; on pruned models with the tokens removed in training too."""
    prunes = None if run.reduction is None else {"method": run.method, "schedule": {"flops": 1 - run.reduction}}
    recipe = Recipe(run.model, kind=MAKE[run.task].__name__, prune=prunes, **FINE_TUNING)
    training = training_scenes(run.task, FINE_TUNING_SCENES)
    with tempfile.TemporaryDirectory() as folder:
        figures = train(recipe, training, first_pictures(run.task, run.images), folder)
    return {**cost(run, pruned(run)), **stored(run.task, figures), "trained": len(training)}


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
    "fine-tuning": (fine_tunings, fine_tune),
    "time": (timed_runs, time_it),
}


def read_results() -> list[dict[str, Any]]:
    """All finished runs, of whatever weights."""
    return read_lines(RESULTS)


def latest(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those runs alone that are of the weights that each model was last measured with."""
    weights = {(line["task"], line["model"]): line["weights"] for line in lines}
    return [line for line in lines if line["weights"] == weights[line["task"], line["model"]]]


def main(given: list[str] | None = None) -> None:
    do_parts(PARTS, Run, RESULTS, read_results, __doc__, given)


if __name__ == "__main__":
    main()
