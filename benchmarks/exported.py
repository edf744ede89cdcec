"""Time of an exported model against the model itself, in turns, and how far their logits are apart.

    python -m benchmarks.exported vim_small_patch16_224 --method hold --dtype fp32,bf16 --batch 1,8 --rounds 7 --exports FOLDER

An export takes minutes: those in ``--exports`` are used again, as long as the file stays there, and made where they are missing.
Random weights; both sides with torch's number of threads. ``eager`` is the model as ``skimba.prune`` returns it, ``.pt2`` the
package of AOTInductor, ``.onnx`` the file in onnxruntime: with the functions that any runtime takes, and with ``ort_library()``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import skimba
from skimba.cost.timing import take_turns
from skimba.models import TokenModel
from skimba.ops import native

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Run = Callable[[Tensor], Tensor]


def made(name: str, method: str, dtype: torch.dtype) -> TokenModel:
    """The model, with the same random weights at each call."""
    torch.manual_seed(0)
    model = skimba.create_model(name).eval().to(dtype)
    return model if method == "dense" else skimba.prune(model, method)


def exported(model: TokenModel, path: Path) -> Path:
    """The file, made unless it is there."""
    return path if path.exists() else skimba.export(model, path)


def forms(model: TokenModel, dtype: torch.dtype, stem: Path) -> dict[str, Run]:
    """The model and what is exported of it, to files of this name; ONNX files are float32 alone."""
    package = exported(model, stem.with_suffix(".pt2"))
    runs: dict[str, Run] = {"eager": model, ".pt2": torch._inductor.aoti_load_package(str(package))}
    if dtype is torch.float32:
        path = exported(model, stem.with_suffix(".onnx"))
        runs[".onnx"] = in_onnxruntime(path, None)
        runs[".onnx, our kernels"] = in_onnxruntime(path, skimba.export.ort_library())
    return runs


def in_onnxruntime(path: Path, library: Path | None) -> Run:
    """A session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Between turns its threads would wait in a loop for a while, on the cores of the model whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def compare(name: str, method: str, dtype: str, batches: list[int], rounds: int, folder: Path) -> list[list[str]]:
    """Rows of the table."""
    model, rows = made(name, method, DTYPES[dtype]), []
    runs = forms(model, DTYPES[dtype], folder / f"{name}-{method}-{dtype}")
    for batch in batches:
        images = torch.randn(batch, *model.input_shape()).to(DTYPES[dtype])
        logits = {form: run(images).float() for form, run in runs.items()}
        times = take_turns({form: partial(run, images) for form, run in runs.items()}, rounds)
        for form, taken in times.items():
            ratio = statistics.median(t / e for t, e in zip(taken, times["eager"], strict=True))
            apart = (logits[form] - logits["eager"]).abs().max().item()
            time = f"{1e3 * statistics.median(taken) / batch:.1f}"
            rows.append([method, dtype, str(batch), form, time, f"{ratio:.2f}", f"{apart:.0e}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--method", default="dense,hold")
    parser.add_argument("--dtype", default="fp32,bf16")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--exports", type=Path, help="folder of exported files, kept for the next time")
    given = parser.parse_args()
    native.keep_freed_memory()
    table = Table("method", "dtype", "batch", "form", "ms an image", "÷ eager", "logits apart", title=given.model)
    batches = [int(batch) for batch in given.batch.split(",")]
    with torch.inference_mode(), TemporaryDirectory() as passing:
        folder = given.exports or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        for method in given.method.split(","):
            for dtype in given.dtype.split(","):
                for row in compare(given.model, method, dtype, batches, given.rounds, folder):
                    table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
