"""The Triton backend: its kernels in the interpreter, in a process of their own, and what it says where it cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skimba.ops import selective_scan
from skimba.ops.backends import triton as backend
from tests.ops.scan_inputs import double, scan_inputs

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(backend.UNAVAILABLE is not None, reason=str(backend.UNAVAILABLE))


def interpret(*options):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops/interpreted", *options],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    return run.stdout


@needs_triton
@pytest.mark.timeout(600)
def test_kernels_equal_the_reference_in_the_interpreter():
    assert "passed" in interpret()


@needs_triton
@pytest.mark.slow
@pytest.mark.timeout(0)
def test_kernels_equal_the_reference_in_the_interpreter_with_every_option():
    assert "passed" in interpret("-m", "slow")


@needs_triton
@pytest.mark.parametrize("name", ["selective_scan", "causal_conv1d", "depthwise_conv2d", "add_rms_norm"])
def test_the_dispatcher_chooses_it_for_cuda_tensors(name):
    for operator in (name, f"{name}_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"skimba::{operator}", "CUDA")


@needs_triton
def test_a_call_that_it_cannot_take_says_why():
    inputs = scan_inputs(3)
    with pytest.raises(
        TypeError, match=r"backend 'triton' needs float32 or bfloat16 on cuda, got torch\.float32 on cpu"
    ):
        selective_scan(**inputs, backend="triton")
    with pytest.raises(TypeError, match=r"got torch\.float64 on meta"):
        selective_scan(**{name: x.to("meta") for name, x in double(inputs).items()}, backend="triton")


def test_without_triton_it_says_so(monkeypatch):
    monkeypatch.setattr(backend, "UNAVAILABLE", "the package triton is not installed")
    for call in (lambda: selective_scan(**scan_inputs(3), backend="triton"), backend.interpret):
        with pytest.raises(RuntimeError, match="backend 'triton' cannot run: the package triton is not installed"):
            call()


def test_a_gpu_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    reason = backend.too_old(torch.device("cuda"))
    assert reason == "it needs compute capability 8.0, this GPU has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert backend.too_old(torch.device("cuda")) is None
    assert backend.too_old(torch.device("cpu")) is None


@needs_triton
def test_the_interpreter_must_be_chosen_before_triton_is_imported():
    with pytest.raises(RuntimeError, match="set TRITON_INTERPRET=1"):
        backend.interpret()


def test_shapes_are_known_without_a_gpu():
    if backend.UNAVAILABLE is not None:
        pytest.skip(backend.UNAVAILABLE)
    inputs = {
        name: x.to("meta") for name, x in scan_inputs(3, without=("gap", "step", "hold", "missing", "order")).items()
    }
    assert selective_scan(**inputs, backend="triton").shape == inputs["u"].shape
