"""The command line. Results go to standard output, progress to standard error; bad input is one line and exit code 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from skimba import bench as benchmark
from skimba import demo as demo_runs
from skimba.data import (
    DEBIAN_FOLDER,
    FashionScenes,
    ImageFolder,
    LabelledImages,
    embedded_test_images,
    load_fashion_mnist,
)
from skimba.doctor import examine
from skimba.evaluate import accuracy, predict
from skimba.flops import count_flops
from skimba.models import TokenModel, create_model
from skimba.ops import native
from skimba.pruning import PRESETS, prune
from skimba.train import CHECKPOINT, Recipe, train

app = typer.Typer(
    help="Token pruning for vision state space models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
T = TypeVar("T")
out, err = Console(), Console(stderr=True)

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="A model, for instance vim_small_patch16_224.")]
Preset = Annotated[
    str | None, typer.Option("--prune", metavar="PRESET", help=f"Prune by a named method: {', '.join(PRESETS)}.")
]
Keep = Annotated[
    str | None,
    typer.Option(metavar="BLOCK:SHARE,…", help="Share of tokens kept after which blocks, for instance 5:0.8,10:0.8."),
]
TargetFlops = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Prune down to this share of the dense model's exact FLOPs.")
]
Scenes = Annotated[
    bool, typer.Option("--scenes", help="Fashion-MNIST's items on photographs (needs skimba[scenes]), 56 pixels.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def doctor(json_output: Json = False) -> None:
    """Show versions, backend, instruction set and threads, and why a backend cannot run."""
    findings = examine()
    if json_output:
        _print_json(findings)
        return
    table = Table(show_header=False, box=None)
    for name, finding in findings.items():
        table.add_row(name, finding)
    out.print(table)


@app.command()
def flops(
    name: ModelName,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    img_size: Annotated[int | None, typer.Option(min=1, help="Side of the image in pixels.")] = None,
    json_output: Json = False,
) -> None:
    """Count a model's multiply-adds for one image, by the published and by the exact convention."""
    model = _pruned(create_model(name), preset, keep, target_flops)
    counts = {convention: count_flops(model, img_size, convention) for convention in ("published", "exact")}
    if json_output:
        _print_json({c: {"total": count.total, "by_module": count.by_module} for c, count in counts.items()})
        return
    for convention, count in counts.items():
        out.print(f"{convention:>9}  {count.total / 1e9:8.3f} G")


@app.command("eval")
def evaluate(
    name: ModelName,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights; those of the package or the hub if left out.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder with Fashion-MNIST's IDX files or with one folder of images for each class; "
            "the 1,000 images in the package if left out."
        ),
    ] = None,
    scenes: Scenes = False,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    json_output: Json = False,
) -> None:
    """Accuracy of a model, dense or pruned."""
    model = create_model(name, pretrained=checkpoint is None, checkpoint=checkpoint)
    model = _pruned(model, preset, keep, target_flops)
    images = _test_images(data, model, scenes)
    with _bar("evaluating", -(-len(images) // batch_size)) as advance:
        if isinstance(images, LabelledImages):
            batches = images.batches(batch_size)
        else:
            batches = iter(torch.utils.data.DataLoader(images, batch_size))
        logits, labels = predict(model, (advance(batch) for batch in batches))
    found = {
        "images": len(labels),
        "top1": accuracy(logits, labels),
        "top5": accuracy(logits, labels, top=5),
        "exact_gflops": count_flops(model, convention="exact").total / 1e9,
    }
    if json_output:
        _print_json(found)
    else:
        out.print(f"{found['images']} images  top-1 {found['top1']:.2%}  top-5 {found['top5']:.2%}", highlight=False)
        out.print(f"{found['exact_gflops']:.3f} exact GFLOPs an image", highlight=False)


@app.command("train")
def train_command(
    name: ModelName,
    folder: Annotated[Path, typer.Option("--out", help="Where checkpoints, log and weights go.")],
    data: Annotated[Path, typer.Option(help="The folder with Fashion-MNIST's four IDX files.")] = DEBIAN_FOLDER,
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    learning_rate: float = Recipe.learning_rate,
    seed: int = Recipe.seed,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16.")] = Recipe.dtype,
    scenes: Scenes = False,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the model's own weights.")] = False,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    teacher: Annotated[
        str | None, typer.Option(help="dense: the unpruned model, as it was at the start, teaches too.")
    ] = None,
) -> None:
    """Fit a model to Fashion-MNIST, dense or pruned. The same command goes on where an interrupted one stopped."""
    recipe = Recipe(
        name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        dtype=dtype,
        pretrained=pretrained,
        prune=_prune_arguments(preset, keep, target_flops),
        teacher=teacher,
    )
    train_set, test_set = (_fashion(data, split, scenes) for split in ("train", "test"))
    if (folder / CHECKPOINT).exists():
        err.print(f"going on with the training in {folder}")
    with _progress() as progress:
        task = progress.add_task("training", total=None)
        found = train(
            recipe,
            train_set,
            test_set,
            folder,
            lambda p: progress.update(
                task, completed=p.step, total=p.steps, description=f"loss {p.loss:.3f}", refresh=True
            ),
        )
    out.print(f"{found:.2%} of {len(test_set)} test images; weights in {folder}", highlight=False)


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; Vim-S beside timm's DeiT-S if left out.")
    ] = None,
    cases: Annotated[
        str,
        typer.Option(
            help=f"Of dense, {', '.join(benchmark.PRUNED)}, {', '.join(benchmark.FLOORS)}, "
            f"{benchmark.REFERENCE}; separated by ;"
        ),
    ] = ";".join(("dense", *benchmark.PRUNED, *benchmark.FLOORS)),
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or both, separated by commas.")] = "fp32",
    batch: Annotated[str, typer.Option(help="Images at a time, separated by commas.")] = "1,8",
    img_size: Annotated[
        str | None,
        typer.Option(help="Sides of the images in pixels, separated by commas; the model's own if left out."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    json_output: Json = False,
) -> None:
    """Time models, dense and pruned, beside their floors. All cases take turns, so that ratios hold."""
    names = names or ["vim_small_patch16_224", "deit_small_patch16_224"]
    dtypes, batches = dtype.split(","), _whole_numbers("--batch", batch)
    img_sizes: list[int | None] = [None] if img_size is None else [*_whole_numbers("--img-size", img_size)]
    with _bar("timing", len(dtypes) * len(batches) * len(img_sizes) * (rounds + 1)) as advance:
        wanted = [case.strip() for case in cases.split(";")]
        timings = benchmark.bench(names, wanted, dtypes, batches, img_sizes, rounds, lambda: advance(None))
    if json_output:
        _print_json({"machine": examine(), "timings": [asdict(timing) for timing in timings]})
        return
    out.print(", ".join(f"{name} {found}" for name, found in examine().items()), highlight=False)
    table = Table()
    for column in ("model", "px", "dtype", "batch", "case", "ms/image", "± ms", "speed-up", "exact GFLOPs"):
        table.add_column(column, justify="left" if column in ("model", "case", "dtype") else "right")
    for t in timings:
        speedup = "" if t.speedup is None else f"{t.speedup:.2f}"
        gflops = "" if t.exact_gflops is None else f"{t.exact_gflops:.2f}"
        cells = (
            t.model,
            t.img_size,
            t.dtype,
            t.batch,
            t.case,
            f"{t.time_ms:.2f}",
            f"{t.spread_ms:.2f}",
            speedup,
            gflops,
        )
        table.add_row(*map(str, cells))
    out.print(table)


@app.command()
def demo(
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("skimba_demo.png"),
    json_output: Json = False,
) -> None:
    """Measure the embedded models, dense and pruned, and draw which tokens survive. Needs no network."""
    from skimba.visualize import draw_stages  # matplotlib takes a second to load

    images = embedded_test_images()
    with _bar("measuring", len(demo_runs.MODELS) * -(-len(images) // demo_runs.BATCH)) as advance:
        rows = [row for name in demo_runs.MODELS for row in demo_runs.measure(name, images, lambda: advance(None))]
    sample = images[:3]
    pruned = {
        f"{name} {preset}": prune(
            create_model(name, pretrained=True), preset, keep=dict.fromkeys(demo_runs.STAGES, 0.7)
        )
        for name in demo_runs.MODELS
        for preset in ("top", "hold")
    }
    with torch.inference_mode():
        models = {title: model.eval() for title, model in pruned.items()}
        draw_stages(models, sample.normalised(), sample.pixels / 255, picture)
    if json_output:
        _print_json({"images": len(images), "picture": str(picture), "rows": [asdict(row) for row in rows]})
        return
    for name in demo_runs.MODELS:
        out.print(_demo_table(name, [row for row in rows if row.model == name], len(images)))
    out.print(f"picture: {picture}", highlight=False)


def _demo_table(name: str, rows: list[demo_runs.Row], images: int) -> Table:
    stages = ", ".join(map(str, demo_runs.STAGES))
    table = Table(title=f"{name}, {images} test images of Fashion-MNIST; tokens kept after blocks {stages}")
    for column in ("keep", "method", "accuracy %", "GFLOPs published", "exact", "ms/image", "speed-up"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(
            f"{row.keep:.1f}",
            row.method,
            f"{100 * row.accuracy:.1f}",
            f"{row.published_gflops:.3f}",
            f"{row.exact_gflops:.3f}",
            f"{row.time_ms:.2f}",
            f"{row.speedup:.2f}",
        )
    return table


def _prune_arguments(preset: str | None, keep: str | None, target_flops: float | None) -> dict[str, Any] | None:
    """Arguments of prune, or None where the command line asks for no pruning."""
    given = {"preset": preset, "keep": None if keep is None else parse_keep(keep), "target_flops": target_flops}
    return {name: value for name, value in given.items() if value is not None} or None


def _pruned(model: TokenModel, preset: str | None, keep: str | None, target_flops: float | None) -> TokenModel:
    arguments = _prune_arguments(preset, keep, target_flops)
    return model if arguments is None else prune(model, **arguments)


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes whole numbers separated by commas, got {text!r}") from None


def parse_keep(text: str) -> dict[int, float]:
    """``"5:0.8,10:0.8"`` -> ``{5: 0.8, 10: 0.8}``."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return {int(block): float(share) for block, share in pairs}
    except ValueError:
        raise ValueError(f"--keep takes BLOCK:SHARE pairs such as 5:0.8,10:0.8, got {text!r}") from None


def _fashion(folder: Path | None, split: str, scenes: bool) -> LabelledImages:
    """Fashion-MNIST from a folder (the 1,000 images in the package without one), on photographs if ``scenes``."""
    items = embedded_test_images() if folder is None else load_fashion_mnist(folder, split)
    return FashionScenes(items, split).labelled() if scenes else items


def _test_images(data: Path | None, model: TokenModel, scenes: bool) -> LabelledImages | ImageFolder:
    if data is not None and data.is_dir() and any(path.is_dir() for path in data.iterdir()):
        return ImageFolder(data, model.img_size[0])
    return _fashion(data, "test", scenes)


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err, auto_refresh=False)  # its own thread would steal time from what is measured


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[T], T]]:
    """A progress bar; what it yields advances it by one and hands its argument through."""
    with _progress() as progress:
        task = progress.add_task(description, total=total)

        def advance(item: T) -> T:
            progress.update(task, advance=1, refresh=True)
            return item

        yield advance


def main() -> None:
    """Run the command line."""
    native.keep_freed_memory()
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        message = " ".join(str(error).split())
        print(f"skimba: {message}", file=sys.stderr)
        sys.exit(2)
