"""Commands that measure: doctor, flops, bench, demo."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from skimba import bench as benchmark
from skimba import demo as demo_runs
from skimba.cli._app import (
    Json,
    Keep,
    ModelSource,
    Preset,
    TargetFlops,
    app,
    bar,
    find_model,
    out,
    print_json,
    prune_arguments,
)
from skimba.data import embedded_test_images
from skimba.doctor import examine
from skimba.flops import count_flops
from skimba.models import create_model
from skimba.pruning import prune


@app.command()
def doctor(json_output: Json = False) -> None:
    """Show versions, backend, instruction set and threads, and why a backend cannot run."""
    findings = examine()
    if json_output:
        print_json(findings)
        return
    table = Table(show_header=False, box=None)
    for name, finding in findings.items():
        table.add_row(name, finding)
    out.print(table)


@app.command()
def flops(
    source: ModelSource,
    preset: Preset = None,
    keep: Keep = None,
    target_flops: TargetFlops = None,
    img_size: Annotated[int | None, typer.Option(min=1, help="Side of the image in pixels.")] = None,
    json_output: Json = False,
) -> None:
    """Count a model's multiply-adds for one image, by the published and by the exact convention."""
    model = find_model(source, prune_arguments(preset, keep, target_flops), weights=False)
    counts = {convention: count_flops(model, img_size, convention) for convention in ("published", "exact")}
    if json_output:
        print_json({c: {"total": count.total, "by_module": count.by_module} for c, count in counts.items()})
        return
    for convention, count in counts.items():
        out.print(f"{convention:>9}  {count.total / 1e9:8.3f} G")


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
    dtypes, batches = dtype.split(","), whole_numbers("--batch", batch)
    img_sizes: list[int | None] = [None] if img_size is None else [*whole_numbers("--img-size", img_size)]
    with bar("timing", len(dtypes) * len(batches) * len(img_sizes) * (rounds + 1)) as advance:
        wanted = [case.strip() for case in cases.split(";")]
        timings = benchmark.bench(names, wanted, dtypes, batches, img_sizes, rounds, lambda: advance(None))
    if json_output:
        print_json({"machine": examine(), "timings": [asdict(timing) for timing in timings]})
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
    with bar("measuring", len(demo_runs.MODELS) * -(-len(images) // demo_runs.BATCH)) as advance:
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
        print_json({"images": len(images), "picture": str(picture), "rows": [asdict(row) for row in rows]})
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


def whole_numbers(option: str, text: str) -> list[int]:
    """``"1,8"`` -> ``[1, 8]``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes whole numbers separated by commas, got {text!r}") from None
