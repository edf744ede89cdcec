"""``skimba.export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.export import ExportedProgram

from skimba.export.metadata import describe
from skimba.export.tracing import example, trace
from skimba.models import TokenModel
from skimba.runtime.files import check_output, write_atomically

OPSETS = range(18, 21)  # of ONNX: torch's exporter writes no older one, and our functions need nothing newer


def export(model: TokenModel, path: str | Path, *, batch: int | None = None, opset: int | None = None) -> Path:
    """Write a model, dense or pruned, as a file that runs without skimba. Tokens are removed there as here.

    ``.onnx``: for onnxruntime, onnxruntime-web, OpenVINO and others. skimba's operators stand in it as nodes of the domain
    ``skimba`` and as functions of ONNX's own operators, which any runtime takes; with :func:`skimba.export.ort_library`
    onnxruntime runs our kernels in their place.

    ``.pt2``: a package of AOTInductor, compiled for this kind of CPU with our kernels in it, which a process with torch alone
    loads: ``torch._inductor.aoti_load_package``, in C++ ``AOTIModelPackageLoader``. It needs a C++ compiler here, and takes a
    minute. Wrong shapes are refused only where ``AOTI_RUNTIME_CHECK_INPUTS=1`` is set.

    The metadata ``skimba`` of the file is JSON that says how pictures are prepared, the classes and the pruning
    (:mod:`skimba.export.metadata`).

    Args:
        model: a classifier on the CPU; it is exported in evaluation mode, for pictures of its ``img_size``.
        path: its suffix is a key of :data:`FORMATS`.
        batch: number of images of every call; any if None.
        opset: of ONNX, one of :data:`OPSETS`; the oldest, which most runtimes take, if None.

    Returns:
        The path.

    Raises:
        TypeError: not a classifier, or a batch or opset that is not a whole number.
        ValueError: an unknown suffix; a batch below 1; an opset that is too old, or without ONNX; a dtype that the format does
            not take; a model on another device; something that cannot be traced.
        ImportError: the format needs a library that is not installed (``pip install 'skimba[export]'``).
        RuntimeError: the package's library was not built, or the package cannot be compiled.
        OSError: it cannot be written; what was there before is intact.
    """
    path = check_output(path, tuple(FORMATS))
    _check_model(model)
    suffix = path.suffix.lower()
    _check_numbers(batch, opset, suffix)
    images = example(model, batch)
    if images.device.type != "cpu":
        raise ValueError(f"a model is exported on the cpu, this one is on {images.device}: model.cpu() first")
    dtypes, make = FORMATS[suffix]
    if images.dtype not in dtypes:
        allowed = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{suffix} takes a model of {allowed}, this one is of {images.dtype}")
    metadata = describe(model, batch, images.dtype)
    content = make(trace(model, batch), metadata, opset or OPSETS[0])
    write_atomically(path, lambda partial: Path(partial).write_bytes(content))
    return path


def _check_model(model: object) -> None:
    if not isinstance(model, TokenModel):
        raise TypeError(f"export takes a classifier of skimba's, got {type(model).__name__}")


def _check_numbers(batch: int | None, opset: int | None, suffix: str) -> None:
    for name, value in (("batch", batch), ("opset", opset)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} is a whole number, got {value!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, or None for any, got {batch}")
    if opset is not None and suffix != ".onnx":
        raise ValueError(f"opset is ONNX's alone and has no effect on {suffix}")
    if opset is not None and opset not in OPSETS:
        raise ValueError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, got {opset}")


def _onnx(program: ExportedProgram, metadata: dict[str, str], opset: int) -> bytes:
    try:
        from skimba.export.onnx_file import to_onnx  # its libraries are optional
    except ImportError as error:
        raise ImportError("ONNX needs onnx and onnxscript: pip install 'skimba[export]'") from error
    return to_onnx(program, metadata, opset)


def _package(program: ExportedProgram, metadata: dict[str, str], opset: int) -> bytes:
    from skimba.export.package import to_package  # loads torch's compiler

    return to_package(program, metadata)


Make = Callable[[ExportedProgram, dict[str, str], int], bytes]
FORMATS: dict[str, tuple[tuple[torch.dtype, ...], Make]] = {
    ".onnx": ((torch.float32,), _onnx),
    ".pt2": ((torch.float32, torch.bfloat16), _package),
}
