"""The options that commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from skimba.cli._models import prune_arguments
from skimba.pruning import METHODS

ModelSource = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name, for instance vim_small_patch16_224 or mask_rcnn:plain_mamba_l1; a recipe.toml; or a .safetensors of "
        "train or export-weights.",
    ),
]
Pruning = Annotated[
    str | None,
    typer.Option(
        "--prune",
        metavar="METHOD",
        help=f"Prune by a method: {', '.join(METHODS)}; or by a .json that skimba schedule wrote.",
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="BLOCK:SHARE,…",
        help="What stays after which blocks: shares (5:0.8,10:0.8), numbers of tokens (10:100) or how many go (15:-20); "
        "or flops:0.6, a share of the dense model's exact FLOPs. The paper's schedule if left out.",
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights for a model given by name; those of the package or the hub if left out.")
]
Int8 = Annotated[
    bool, typer.Option("--int8", help="Multiply in 8-bit integers: faster on a CPU, weights a quarter of the size.")
]
Scenes = Annotated[
    bool, typer.Option("--scenes", help="Fashion-MNIST's items on photographs (needs skimba[scenes]), 56 pixels.")
]
Labels = Annotated[
    Path | None, typer.Option(help="Classes of a flat folder of ImageNet's pictures: a line for each, name and class.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that decode pictures; by default none on the cpu, where the model uses all cores.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, or cuda (Triton kernels where it is installed).")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at a picture that cannot be read.")]
Smoke = Annotated[
    bool, typer.Option("--smoke", help="Run a narrow model on a few small pictures, to check that everything works.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is pruned."""

    source: ModelSource
    checkpoint: Checkpoint = None
    method: Pruning = None
    schedule: Schedule = None
    int8: Int8 = False

    @property
    def pruning(self) -> dict[str, Any] | None:
        return prune_arguments(self.method, self.schedule)

    @property
    def files(self) -> list[Path]:
        """Input files, which no output may replace."""
        source = Path(self.source)
        given = (source, source.with_suffix(".json"), self.checkpoint, Path(self.method) if self.method else None)
        return [path for path in given if path is not None]


@dataclass(frozen=True)
class DataOptions:
    """Which pictures."""

    data: Annotated[
        Path | None,
        typer.Option(help="A folder with train and val (class folders or tar shards), or Fashion-MNIST's files."),
    ] = None
    labels: Labels = None
    scenes: Scenes = False


@dataclass(frozen=True)
class RunOptions:
    """How it is run."""

    workers: Workers = None
    device: Device = "cpu"
    strict: Strict = False

    @property
    def decoders(self) -> int:
        """How many worker processes decode. None where the model keeps the cores busy: they would only compete with it
        (``benchmarks/loading.py``: Vim-T evaluates at 0.90 of its own rate without workers, at 0.84 with two on two cores)."""
        if self.workers is not None:
            return self.workers
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return 0 if self.device == "cpu" else max((os.cpu_count() or 1) // processes, 1)
