"""Commands that measure: doctor, flops, schedule, bench, demo."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from skimba.cli import _class_demo, _clip_demo, _dense_demo
from skimba.cli._app import command, out, print_json, say
from skimba.cli._models import find_model, prune_arguments
from skimba.cli._options import Checkpoint, Device, Json, ModelOptions, ModelSource, Pruning, Schedule
from skimba.cli._pictures import find_files, one_batch
from skimba.cli._progress import bar
from skimba.cost.flops import count_flops
from skimba.data.loading import in_order, load_batches
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.models import TokenModel
from skimba.pruning import Pruner, Target, prune, read_settings, read_target
from skimba.reports import bench as benchmark
from skimba.reports.dense_demo import KINDS
from skimba.reports.doctor import examine
from skimba.runtime.files import check_output, write_text_atomically
from skimba.tasks import task_of

PICTURES = (".png", ".pdf", ".svg")  # what matplotlib writes
SAMPLE, DENSE_SAMPLE = 256, 16  # pictures to choose stages on; those of detectors and segmenters are large


@command("doctor")
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


@command("flops")
def flops(
    source: ModelSource,
    method: Pruning = None,
    schedule: Schedule = None,
    img_size: Annotated[int | None, typer.Option(min=1, help="Side of the image in pixels.")] = None,
    json_output: Json = False,
) -> None:
    """Count a model's multiply-adds for one image, by the published and by the exact convention."""
    model = find_model(source, prune_arguments(method, schedule), weights=False)
    counts = {convention: count_flops(model, img_size, convention) for convention in ("published", "exact")}
    if json_output:
        print_json({c: {"total": count.total, "by_module": count.by_module} for c, count in counts.items()})
        return
    for convention, count in counts.items():
        out.print(f"{convention:>9}  {count.total / 1e9:8.3f} G")


@dataclass(frozen=True)
class TargetOptions:
    """What a pruned model shall come to."""

    flops: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Of the dense model's exact FLOPs to come down to.")
    ] = None
    speedup: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES", help="Prune until the model is this many times as fast, measured on this machine."
        ),
    ] = None
    milliseconds: Annotated[
        float | None, typer.Option(metavar="TIME", help="Prune until a batch takes no longer, measured here.")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time for --speedup (8) and --milliseconds (1).")
    ] = None
    images: Annotated[Path | None, typer.Option(help="Unlabelled pictures, or clips, to choose the stages on.")] = None
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many of them to read, spread over the folder: 256, of a detector or segmenter 16, if left out.",
        ),
    ] = None

    def target(self) -> Target:
        """Without its images."""
        names = ("flops", "speedup", "milliseconds", "batch_size")
        found = read_target({name: getattr(self, name) for name in names if getattr(self, name) is not None})
        if found is None:
            raise ValueError("give a target: --flops, --speedup or --milliseconds")
        return found


@command("schedule")
def schedule_command(
    source: ModelSource,
    wanted: TargetOptions,
    method: Pruning = None,
    settings: Annotated[Path | None, typer.Option("--out", help="A .json for --prune.")] = None,
    checkpoint: Checkpoint = None,
    json_output: Json = False,
) -> None:
    """Find a schedule for a target of FLOPs or of measured speed."""
    if settings is not None:
        check_output(settings, (".json",), ModelOptions(source, checkpoint, method).files)
    target: Any = wanted.target()
    model = find_model(source, None, checkpoint, weights=wanted.images is not None).eval()
    if wanted.images is not None:
        target = replace(target, images=sample(model, wanted.images, wanted.count))
    pruned = prune(model, **read_settings({**(prune_arguments(method, None) or {}), "schedule": target}))
    reducer = tokens_of(pruned).reducer
    assert isinstance(reducer, Pruner)
    found = reducer.to_dict()
    if settings is not None:
        write_text_atomically(settings, json.dumps(found, indent=2) + "\n")
    if json_output:
        print_json(found)
        return
    for line in str(reducer).splitlines():
        say(line)
    images = target.images if reducer.counts_by_image else None
    exact = [count_flops(tokens_of(each), convention="exact", images=images).total for each in (pruned, model)]
    whole = "backbone" if isinstance(model, DenseModel) else "model"
    say(f"{exact[0] / 1e9:.3f} G exact, {exact[0] / exact[1]:.3f} of the dense {whole}'s")


def sample(model: TokenModel | DenseModel, folder: Path, count: int | None) -> torch.Tensor:
    """One batch of so many pictures, or clips, from all over a folder."""
    count = count or (DENSE_SAMPLE if isinstance(model, DenseModel) else SAMPLE)
    files = find_files(model, [folder])
    wanted = in_order(len(files), count, every=max(len(files) // count, 1))[0]
    return one_batch(model, next(load_batches(files, task_of(model).reader(model), [wanted], 0, strict=True)).images)


@command("bench")
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; Vim-S beside timm's DeiT-S if left out.")
    ] = None,
    cases: Annotated[
        str,
        typer.Option(
            help=f"Of dense, {', '.join(benchmark.PRUNED)}, {', '.join(benchmark.FLOORS)}, "
            f"{benchmark.REFERENCE}; separated by ; ('top, compiled': by torch.compile)"
        ),
    ] = ";".join(("dense", *benchmark.PRUNED, *benchmark.FLOORS)),
    dtype: Annotated[str, typer.Option(help=f"Of {', '.join(benchmark.DTYPES)}, separated by commas.")] = "fp32",
    batch: Annotated[str, typer.Option(help="Images at a time, separated by commas.")] = "1,8",
    img_size: Annotated[
        str | None,
        typer.Option(help="Sides of the images in pixels, separated by commas; the model's own if left out."),
    ] = None,
    schedule: Schedule = None,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    device: Device = "cpu",
    json_output: Json = False,
) -> None:
    """Time models, dense and pruned, and their floors. All cases take turns, so that ratios hold."""
    names = names or ["vim_small_patch16_224", "deit_small_patch16_224"]
    dtypes, batches = dtype.split(","), whole_numbers("--batch", batch)
    given = read_settings(prune_arguments(None, schedule) or {})
    pruned = {case: {**own, **given} for case, own in benchmark.PRUNED.items()}
    img_sizes: list[int | None] = [None] if img_size is None else [*whole_numbers("--img-size", img_size)]
    with bar("timing", len(batches) * len(img_sizes) * (rounds + 1)) as advance:
        wanted = [case.strip() for case in cases.split(";")]
        timings = benchmark.bench(names, wanted, dtypes, batches, img_sizes, rounds, lambda: advance(1), pruned, device)
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


@command("demo")
def demo(
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("skimba_demo.png"),
    task: Annotated[str, typer.Option(help="classify, detect, segment or clips.")] = "classify",
    json_output: Json = False,
) -> None:
    """Measure the embedded models, dense and pruned, and draw which tokens survive. Needs no network."""
    if task not in DEMOS:
        raise ValueError(f"--task is one of {', '.join(DEMOS)}, got {task!r}")
    show, kinds = DEMOS[task]
    check_output(picture, kinds)
    show(picture, json_output)


def whole_numbers(option: str, text: str) -> list[int]:
    """``"1,8"`` -> ``[1, 8]``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes whole numbers separated by commas, got {text!r}") from None


# By what the demo is asked: what measures, draws and prints, and which kinds of picture it writes.
DEMOS: dict[str, tuple[Callable[[Path, bool], None], tuple[str, ...]]] = {
    "classify": (_class_demo.show, PICTURES),
    **{asked: (partial(_dense_demo.show, asked), (".png",)) for asked in KINDS},
    "clips": (_clip_demo.show, PICTURES),
}
