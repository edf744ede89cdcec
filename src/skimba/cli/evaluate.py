"""``skimba eval``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from timm.data import RealLabelsImagenet

from skimba.cli._app import command, print_json, say, warn_of
from skimba.cli._models import find_model, mode_of
from skimba.cli._options import DataOptions, Json, ModelOptions, RunOptions, Smoke
from skimba.cli._progress import bar
from skimba.cost.flops import count_flops
from skimba.data import Pictures, open_pictures, select
from skimba.data.loading import Rejected, in_order, load_batches
from skimba.models import TokenModel
from skimba.runtime.files import check_output
from skimba.runtime.processes import local_device, rank, world_size
from skimba.tasks import Classification, Task, predict_all, task_of
from skimba.tasks.classification import confusion, labelled, real_accuracy, write_confusion
from skimba.tasks.tables import FORMATS, write_rows
from skimba.training import read_recipe

SMOKE_PICTURES = 8
COUNTED = 64  # pictures for FLOPs that depend on them


@dataclass(frozen=True)
class TableOptions:
    """What is written."""

    predictions: Annotated[
        Path | None, typer.Option(help="Write the prediction for each picture (.csv or .parquet).")
    ] = None
    confusion: Annotated[Path | None, typer.Option(help="Write the confusion matrix, true classes in rows (.csv).")] = (
        None
    )

    def check(self, inputs: list[Path]) -> None:
        """Raise before any work if a table cannot be written."""
        for path, suffixes in ((self.predictions, tuple(FORMATS)), (self.confusion, (".csv",))):
            if path is not None:
                check_output(path, suffixes, inputs)

    def write(self, task: Task, rows: list[Any], pictures: Pictures) -> None:
        """In one process."""
        if self.predictions is not None and rank() == 0:
            write_rows(rows, task.row, self.predictions)
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
    tables.check(model.files)
    network, test_set = _smoke(model, pictures) if smoke else _open(model, pictures)
    task = task_of(network)
    if not isinstance(task, Classification) and (real or tables.confusion):
        raise ValueError("--real and --confusion are for classification")
    task.check(network, test_set)
    network.to(local_device(how.device))
    started = time.perf_counter()
    with bar("evaluating", -(-len(test_set) // world_size())) as advance:
        rows, rejected = predict_all(task, network, test_set, batch_size, how.decoders, how.strict, advance)
    passed = time.perf_counter() - started
    report = {**task.measure(rows, test_set), "rejected": len(rejected), "images_per_s": len(rows) / passed}
    report["exact_gflops"] = _exact_gflops(task, network, test_set)
    if real:
        report["real"] = real_accuracy(labelled(rows), _real_labels())
    tables.write(task, rows, test_set)
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


def _open(model: ModelOptions, pictures: DataOptions) -> tuple[TokenModel, Pictures]:
    network = find_model(model.source, model.pruning, model.checkpoint, int8=model.int8)
    return network, _test_set(pictures, network, network.num_classes)


def _smoke(model: ModelOptions, pictures: DataOptions) -> tuple[TokenModel, Pictures]:
    """A narrow version of the model from random weights, and a few pictures of as many classes."""
    recipe = read_recipe(model.source).as_smoke()
    test_set = _test_set(pictures, recipe.dense_model(), None)
    network = find_model(recipe, model.pruning, classes=len(test_set.classes), int8=model.int8)
    return network, select(test_set, range(min(len(test_set), SMOKE_PICTURES)))


def _test_set(given: DataOptions, model: TokenModel, classes: int | None) -> Pictures:
    return open_pictures(
        given.data, "test", mode=mode_of(model), num_classes=classes, labels=given.labels, scenes=given.scenes
    )


def _exact_gflops(task: Task, model: TokenModel, pictures: Pictures) -> float:
    """For an image; the mean over the first COUNTED where it depends on the image."""
    images = None
    if model.reducer is not None and model.reducer.counts_by_image:
        wanted = in_order(min(len(pictures), COUNTED), COUNTED)
        images = next(load_batches(pictures, task.reader(model), wanted, workers=0)).images
        images = images.to(next(model.parameters()).device)
    return count_flops(model, convention="exact", images=images).total / 1e9


def _real_labels() -> dict[str, list[int]]:
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
    return {Path(name).stem: real for name, real in RealLabelsImagenet(names).real_labels.items()}
