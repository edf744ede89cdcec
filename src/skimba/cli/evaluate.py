"""``skimba eval``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from timm.data import RealLabelsImagenet

from skimba.cli._app import command, print_json, say, warn_of
from skimba.cli._models import find_model
from skimba.cli._options import DataOptions, Json, ModelOptions, RunOptions, Smoke
from skimba.cli._pictures import one_batch, open_split
from skimba.cli._progress import bar
from skimba.cli._results import check_results
from skimba.cost.flops import count_flops
from skimba.data import Pictures, select
from skimba.data.loading import Rejected, in_order, load_batches
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.models import TokenModel
from skimba.runtime.files import check_output
from skimba.runtime.processes import local_device, rank, world_size
from skimba.tasks import Classification, Task, predict_all, task_of
from skimba.tasks.classification import confusion, labelled, real_accuracy, write_confusion
from skimba.tasks.resumable import Run, predict_rows
from skimba.training import read_recipe

SMOKE_PICTURES = 8
COUNTED = 64  # pictures for FLOPs that depend on them


@dataclass(frozen=True)
class TableOptions:
    """What is written."""

    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write the prediction for each picture (.csv or .parquet; COCO's .json of a detector; a folder of label maps); "
            "an interrupted evaluation then resumes."
        ),
    ] = None
    confusion: Annotated[Path | None, typer.Option(help="Write the confusion matrix, true classes in rows (.csv).")] = (
        None
    )

    def check(self, task: Task, inputs: list[Path]) -> None:
        """Raise before any work if something cannot be written."""
        if self.predictions is not None:
            check_results(self.predictions, task, inputs)
        if self.confusion is not None:
            check_output(self.confusion, (".csv",), inputs)

    def write(self, rows: list[Any], pictures: Pictures) -> None:
        """In one process."""
        if self.confusion is not None and rank() == 0:
            write_confusion(confusion(labelled(rows), len(pictures.classes)), pictures.classes, self.confusion)


@command("eval")
def evaluate(
    model: ModelOptions,
    pictures: DataOptions,
    how: RunOptions,
    tables: TableOptions,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    real: Annotated[
        bool, typer.Option("--real", help="Also report accuracy on ImageNet's real labels (arXiv 2006.07159).")
    ] = False,
    smoke: Smoke = False,
    json_output: Json = False,
) -> None:
    """Measure a model, dense or pruned, on all pictures, each counted once. Under torchrun the work is shared.

    Without --data: the 1,000 images in the package.
    """
    network, test_set = _smoke(model, pictures) if smoke else _open(model, pictures)
    task = task_of(network)
    if not isinstance(task, Classification) and (real or tables.confusion):
        raise ValueError("--real and --confusion are for classification")
    tables.check(task, model.files)
    task.check(network, test_set)
    network.to(local_device(how.device))
    started = time.perf_counter()
    with bar("evaluating", -(-len(test_set) // world_size())) as advance:
        rows, rejected = _predict(
            task, network, test_set, min(batch_size, task.chunk), how, tables.predictions, advance
        )
    passed = time.perf_counter() - started
    report = {**task.measure(rows, test_set), "rejected": len(rejected), "images_per_s": len(rows) / passed}
    report["exact_gflops"] = _exact_gflops(task, network, test_set)
    if real:
        report["real"] = real_accuracy(labelled(rows), _real_labels())
    tables.write(rows, test_set)
    _show(task, report, rejected, json_output)


def _show(task: Task, report: dict[str, Any], rejected: list[Rejected], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        for line in task.describe(report).splitlines():
            say(line)
        if "real" in report:
            say(f"real labels: {report['real']:.2%}")
        say(f"{report['exact_gflops']:.3f} exact GFLOPs an image; {report['images_per_s']:.1f} images/s with decoding")
    warn_of(rejected)


def _predict(
    task: Task,
    network: TokenModel | DenseModel,
    pictures: Pictures,
    batch_size: int,
    how: RunOptions,
    out: Path | None,
    advance: Callable[[int], None],
) -> tuple[list[Any], list[Rejected]]:
    """All rows; with an output, written there, resumably."""
    if out is None:
        return predict_all(task, network, pictures, batch_size, how.decoders, how.strict, advance)
    rows, rejected = predict_rows(
        Run(task, network, pictures, batch_size, how.decoders, how.strict, on_done=advance), out
    )
    if not rows:
        raise ValueError(f"none of the {len(pictures)} pictures can be read, for instance {rejected[0].reason}")
    return rows, rejected


def _open(model: ModelOptions, pictures: DataOptions) -> tuple[TokenModel | DenseModel, Pictures]:
    network = find_model(model.source, model.pruning, model.checkpoint, int8=model.int8)
    return network, open_split(network, pictures, "test", pictures.data, network.num_classes)


def _smoke(model: ModelOptions, pictures: DataOptions) -> tuple[TokenModel | DenseModel, Pictures]:
    """A narrow version of the model from random weights, and a few pictures of as many classes."""
    recipe = read_recipe(model.source).as_smoke()
    test_set = open_split(recipe.dense_model(), pictures, "test", pictures.data)
    network = find_model(recipe, model.pruning, classes=len(test_set.classes), int8=model.int8)
    return network, select(test_set, range(min(len(test_set), SMOKE_PICTURES)))


def _exact_gflops(task: Task, model: TokenModel | DenseModel, pictures: Pictures) -> float:
    """For an image, of a detector or segmenter as large as it is made for; the mean over the first COUNTED where it depends on
    the image."""
    images, reducer = None, tokens_of(model).reducer
    if reducer is not None and reducer.counts_by_image:
        wanted = in_order(min(len(pictures), COUNTED), COUNTED)
        images = one_batch(model, next(load_batches(pictures, task.reader(model), wanted, workers=0)).images)
        images = images.to(next(model.parameters()).device)
    return count_flops(model, convention="exact", images=images).total / 1e9


def _real_labels() -> dict[str, list[int]]:
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
    return {Path(name).stem: real for name, real in RealLabelsImagenet(names).real_labels.items()}
