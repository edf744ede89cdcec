"""Commands on pictures: train, eval, predict, compare, export-weights."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from timm.data import RealLabelsImagenet

from skimba.cli._app import (
    Checkpoint,
    Device,
    Json,
    Keep,
    Labels,
    ModelSource,
    Preset,
    Scenes,
    Smoke,
    Strict,
    TargetFlops,
    Workers,
    app,
    bar,
    decoders,
    err,
    find_model,
    mode_of,
    out,
    print_json,
    progress_bar,
    prune_arguments,
)
from skimba.cost.flops import count_flops
from skimba.data import DEBIAN_FOLDER, Pictures, Selected, find_images, open_pictures
from skimba.data.loading import Rejected, in_order, load_batches
from skimba.data.pictures import Mode
from skimba.data.transforms import evaluation_transform
from skimba.models import TokenModel
from skimba.pruning import Pruner
from skimba.runtime.processes import local_device, rank, world_size
from skimba.store.publish import push_model, save_model
from skimba.tasks.inference import predict_files
from skimba.tasks.predictions import (
    Prediction,
    compare,
    confusion,
    labelled,
    predict_pictures,
    read_predictions,
    real_accuracy,
    top_share,
    write_confusion,
    write_table,
)
from skimba.training import read_recipe, train
from skimba.training.checkpoint import CHECKPOINT

SMOKE_PICTURES = 8
SHOWN = 20  # names in a list on the screen
COUNTED = 64  # pictures for FLOPs that depend on them


@app.command("train")
def train_command(
    source: ModelSource,
    folder: Annotated[Path, typer.Option("--out", help="Where checkpoints, logs and weights go.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]…", help="Settings of the recipe, for instance epochs=3 prune.preset=top."),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="A folder with train and val (class folders or tar shards), or Fashion-MNIST's files.")
    ] = DEBIAN_FOLDER,
    labels: Labels = None,
    scenes: Scenes = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    dtype: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    pretrained: Annotated[bool | None, typer.Option("--pretrained", help="Start from the model's own weights.")] = None,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    teacher: Annotated[
        str | None, typer.Option(help="dense: the unpruned model, as it was at the start, teaches too.")
    ] = None,
    smoke: Smoke = False,
    workers: Workers = None,
    device: Device = "cpu",
    strict: Strict = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard too.")] = False,
) -> None:
    """Fit a model, dense or pruned, by a recipe. The same command goes on where an interrupted one stopped.

    Under torchrun the batch is shared by the processes.
    """
    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "dtype": dtype,
        "pretrained": pretrained,
        "prune": prune_arguments(preset, keep, target_flops),
        "teacher": teacher,
        "smoke": smoke or None,
    }
    given = [(name, value) for name, value in options.items() if value is not None]
    recipe = read_recipe(source, [*given, *(overrides or [])])
    probe = recipe.dense_model(weights=False)  # says what it takes, before anything is read
    known = probe.num_classes if recipe.from_weights or "num_classes" in (recipe.sizes or {}) else None
    train_set, test_set = (
        open_pictures(
            data,
            split,
            mode=mode_of(probe),
            num_classes=known,
            scenes=scenes,
            labels=labels if split == "test" else None,
        )
        for split in ("train", "test")
    )
    if (folder / CHECKPOINT).exists():
        err.print(f"going on with the training in {folder}")
    with progress_bar() as progress:
        task = progress.add_task("training", total=None)
        found = train(
            recipe,
            train_set,
            test_set,
            folder,
            lambda p: progress.update(
                task, completed=p.step, total=p.steps, description=f"loss {p.loss:.3f}", refresh=True
            ),
            workers=decoders(workers, device),
            device=device,
            strict=strict,
            tensorboard=tensorboard,
            on_rejected=_warn,
        )
    out.print(f"{found:.2%} of {len(test_set)} test images; weights in {folder}", highlight=False)


@app.command("eval")
def evaluate(
    source: ModelSource,
    checkpoint: Checkpoint = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Fashion-MNIST's IDX files, class folders or tar shards; the 1,000 images in the package if left out."
        ),
    ] = None,
    labels: Labels = None,
    real: Annotated[
        bool, typer.Option("--real", help="Also by ImageNet's real labels (arXiv 2006.07159), which timm has.")
    ] = False,
    scenes: Scenes = False,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    predictions: Annotated[
        Path | None, typer.Option(help="Write what is said of each picture (.csv or .parquet).")
    ] = None,
    confusion_table: Annotated[
        Path | None, typer.Option("--confusion", help="Write how often each class (row) was taken for which (.csv).")
    ] = None,
    smoke: Smoke = False,
    workers: Workers = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
) -> None:
    """Accuracy of a model, dense or pruned, on all pictures, each counted once. Under torchrun they are shared."""
    pruning = prune_arguments(preset, keep, target_flops)
    if smoke:
        pictures = _test_pictures(data, labels, scenes, "RGB", None)
        pictures = Selected(pictures, range(min(len(pictures), SMOKE_PICTURES)))
        model = find_model(source, pruning, smoke_classes=len(pictures.classes))
    else:
        model = find_model(source, pruning, checkpoint)
        pictures = _test_pictures(data, labels, scenes, mode_of(model), model.num_classes)
    if len(pictures.classes) != model.num_classes:
        raise ValueError(f"the pictures have {len(pictures.classes)} classes, the model {model.num_classes}")
    model.to(local_device(device))
    started = time.perf_counter()
    with bar("evaluating", -(-len(pictures) // (batch_size * world_size()))) as advance:
        found, rejected = predict_pictures(model, pictures, batch_size, decoders(workers, device), strict, advance)
    passed = time.perf_counter() - started
    if not (known := labelled(found)):
        raise ValueError("none of the pictures has a class; skimba predict takes such")
    counts = confusion(known, model.num_classes)
    if rank() == 0:
        if predictions is not None:
            write_table(found, Prediction, predictions)
        if confusion_table is not None:
            write_confusion(counts, pictures.classes, confusion_table)
    of_class = (counts.diagonal() / counts.sum(1)).tolist()
    report: dict[str, Any] = {
        "images": len(known),
        "rejected": len(rejected),
        "top1": top_share(known, 1),
        "top5": top_share(known, 5),
        "exact_gflops": _exact_gflops(model, pictures),
        "images_per_s": len(found) / passed,
        "top1_of_class": {
            name: share for name, share, n in zip(pictures.classes, of_class, counts.sum(1).tolist(), strict=True) if n
        },
    }
    if real:
        report["real"] = real_accuracy(known, _real_labels())
    if json_output:
        print_json(report)
    else:
        out.print(f"{len(known)} images  top-1 {report['top1']:.2%}  top-5 {report['top5']:.2%}", highlight=False)
        if real:
            out.print(f"real labels: {report['real']:.2%}", highlight=False)
        speed = f"{report['images_per_s']:.1f} images/s with decoding"
        out.print(f"{report['exact_gflops']:.3f} exact GFLOPs an image; {speed}", highlight=False)
        hardest = sorted(report["top1_of_class"].items(), key=lambda item: item[1])[:3]
        out.print("hardest: " + ", ".join(f"{name} {share:.1%}" for name, share in hardest), highlight=False)
    _warn(rejected)


@app.command("predict")
def predict_command(
    source: ModelSource,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Images, folders of images, tar shards.")],
    table: Annotated[Path, typer.Option("--out", help="Where predictions go: .csv or .parquet.")],
    checkpoint: Checkpoint = None,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Say what is in pictures. Those that cannot be read go to OUT.rejects.csv; an interrupted run goes on when repeated."""
    pruning = prune_arguments(preset, keep, target_flops)
    model = find_model(source, pruning, checkpoint).to(local_device(device))
    files = find_images(paths, mode_of(model))
    what = {"model": source, "checkpoint": None if checkpoint is None else str(checkpoint), "prune": repr(pruning)}
    with progress_bar() as progress:
        task = progress.add_task("predicting", total=-(-len(files) // world_size()))
        count, rejects = predict_files(
            model,
            files,
            table,
            what,
            batch_size,
            decoders(workers, device),
            lambda done: progress.update(task, advance=done, refresh=True),
        )
    out.print(f"{count} predictions in {table}, {rejects} rejected", highlight=False)


@app.command("compare")
def compare_command(
    before: Annotated[Path, typer.Argument(help="Predictions of one model, for instance the dense one.")],
    after: Annotated[Path, typer.Argument(help="Those of another for the same pictures.")],
    json_output: Json = False,
) -> None:
    """Which pictures flip between two models, right to wrong and wrong to right."""
    found = compare(read_predictions(before), read_predictions(after))
    if json_output:
        print_json(asdict(found))
        return
    out.print(f"{found.pictures} pictures, the same class for {found.agreement:.2%}", highlight=False)
    for what, names in (("right to wrong", found.broken), ("wrong to right", found.mended)):
        listed = " ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
        out.print(f"{what}: {len(names)}  {listed}", highlight=False)


@app.command("export-weights")
def export_weights(
    source: ModelSource,
    weights: Annotated[
        Path, typer.Option("--out", help="The .safetensors to write; a .json of that name goes beside.")
    ],
    checkpoint: Checkpoint = None,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    figures: Annotated[Path | None, typer.Option(help="JSON of skimba eval to publish with it.")] = None,
    push: Annotated[str | None, typer.Option(metavar="USER/NAME", help="Also upload to this hub repository.")] = None,
) -> None:
    """Write a model, dense or pruned, so that skimba.create_model(checkpoint=…) restores it."""
    model = find_model(source, prune_arguments(preset, keep, target_flops), checkpoint)
    beside = save_model(model, weights, None if figures is None else json.loads(figures.read_text()))
    if push is not None:
        push_model(weights, push)
    out.print(f"{weights} and {beside.name}" + ("" if push is None else f", pushed to {push}"), highlight=False)


def _test_pictures(data: Path | None, labels: Path | None, scenes: bool, mode: Mode, classes: int | None) -> Pictures:
    return open_pictures(data, "test", mode=mode, num_classes=classes, labels=labels, scenes=scenes)


def _exact_gflops(model: TokenModel, pictures: Pictures) -> float:
    """For an image; the mean over the first COUNTED where it depends on the image."""
    images = None
    if isinstance(model.reducer, Pruner) and model.reducer.counts_by_image:
        wanted = in_order(min(len(pictures), COUNTED), COUNTED)
        images = next(load_batches(pictures, evaluation_transform(model), wanted, workers=0)).images
        images = images.to(next(model.parameters()).device)
    return count_flops(model, convention="exact", images=images).total / 1e9


def _real_labels() -> dict[str, list[int]]:
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
    return {Path(name).stem: real for name, real in RealLabelsImagenet(names).real_labels.items()}


def _warn(rejected: list[Rejected]) -> None:
    if rejected:
        distinct = {one.name: one for one in rejected}
        err.print(f"{len(distinct)} unreadable, for instance {rejected[0].reason}", highlight=False)
