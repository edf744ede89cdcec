"""The ``triton`` backend: kernels for GPUs. They are built when they are first needed, and so is Triton itself imported.

Kernels take float32 and bfloat16; CUDA tensors of any other dtype go to the reference. No GPU has run them yet: they are tested
in Triton's interpreter, and compiled for two generations of GPUs.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from skimba.ops import library
from skimba.ops.backends import reference
from skimba.ops.library import (
    ADD_RMS_NORM,
    CAUSAL_CONV1D,
    DEPTHWISE_CONV2D,
    SELECTIVE_SCAN,
    Operator,
    implement,
)

DTYPES = (torch.float32, torch.bfloat16)
OLDEST = (8, 0)  # the compute capability from which on Triton has bfloat16
# The reason why the kernels cannot run anywhere on this machine
UNAVAILABLE = None if importlib.util.find_spec("triton") else "the package triton is not installed"
OPERATORS = tuple(o.name for o in (SELECTIVE_SCAN, CAUSAL_CONV1D, DEPTHWISE_CONV2D, ADD_RMS_NORM))
TABLE = "skimba.ops.backends.triton.table"
_DEVICES = {"cuda", "meta"}  # meta: only shapes are asked for


def run(operator: Operator, inputs: Any) -> Any:
    """The kernels, or the reason why they cannot run."""
    x = inputs[0]
    if UNAVAILABLE is not None:
        raise RuntimeError(f"backend 'triton' cannot run: {UNAVAILABLE}")
    if x.dtype not in DTYPES or x.device.type not in _DEVICES:
        raise TypeError(f"backend 'triton' needs float32 or bfloat16 on cuda, got {x.dtype} on {x.device}")
    if reason := too_old(x.device):
        raise RuntimeError(f"backend 'triton' cannot run: {reason}")
    if operator.name not in OPERATORS:
        raise RuntimeError(f"backend 'triton' has no {operator.name}")
    return library.call(operator.forward, *inputs)


def too_old(device: torch.device) -> str | None:
    """Why this GPU cannot run the kernels."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= OLDEST:
        return None
    return f"it needs compute capability {OLDEST[0]}.{OLDEST[1]}, this GPU has {capability[0]}.{capability[1]}"


def interpret() -> None:
    """From now on run the kernels on CPU tensors too, in place of the C++ ones and in Triton's interpreter. For tests.

    Raises:
        RuntimeError: Triton is not installed, or the variable ``TRITON_INTERPRET`` was not 1 when it was imported.
    """
    if UNAVAILABLE is not None:
        raise RuntimeError(f"backend 'triton' cannot run: {UNAVAILABLE}")
    if not importlib.import_module("triton").knobs.runtime.interpret:
        raise RuntimeError("kernels run on CPU tensors only in Triton's interpreter: set TRITON_INTERPRET=1")
    _DEVICES.add("cpu")
    _register("CPU")


def _takes(x: Tensor) -> bool:
    return x.dtype in DTYPES and too_old(x.device) is None


def _register(key: str) -> None:
    for name in OPERATORS:
        implement(name, key, *reference.where(_takes, name, (_later(name, 0), _later(name, 1))))


def _later(name: str, number: int) -> Any:
    """An operator's kernel, or its gradient's, that imports Triton when it is first called."""
    return lambda *arguments: importlib.import_module(TABLE).KERNELS[name][number](*arguments)


if UNAVAILABLE is None:
    _register("CUDA")
