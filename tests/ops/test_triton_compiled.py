"""Triton's kernels compiled for GPUs that are not here: they fit into registers without spilling any."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from skimba.ops.backends import triton as backend
from skimba.ops.inputs import CAUSAL, GRID, NORM, SCAN
from tests.ops.scan_inputs import scan_inputs
from tests.ops.test_convolution import a_source, conv_inputs

pytestmark = [
    pytest.mark.skipif(backend.UNAVAILABLE is not None, reason=str(backend.UNAVAILABLE)),
    pytest.mark.skipif(sys.platform != "linux", reason="ptxas comes with Triton for Linux"),
    pytest.mark.timeout(600),
]
GPUS = {80: "sm_80", 90: "sm_90a"}
PLAIN = ("gap", "step", "hold", "missing", "order")
# Of the 255 that a thread can have. 168 leave room for 12 warps on a multiprocessor (65536 registers), 255 for 8.
MOST_REGISTERS = {"scan": 168, "carry": 168, "norm": 128, "norm_backward": 128}


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """A function that compiles what a call would launch, for a GPU: registers and bytes spilled, by kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from skimba.ops.backends.triton import convolution, norm, scan, table
    from skimba.ops.backends.triton.launch import options

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    found: dict[str, tuple[int, int]] = {}

    def compile_only(kernel, programs, like, *arguments, warps, registers=None, **constants):
        built = kernel.warmup(*arguments, grid=(programs,), **constants, **options(warps, registers))
        source = tmp_path / "kernel.ptx"
        source.write_text(built.asm["ptx"])
        gpu = GPUS[driver.active.get_current_target().arch]
        command = [ptxas, "-v", f"--gpu-name={gpu}", source, "-o", tmp_path / "kernel.cubin"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers = int(re.search(r"Used (\d+) registers", told)[1])
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", told)))
        before = found.get(kernel.__name__, (0, 0))
        found[kernel.__name__] = (max(before[0], registers), max(before[1], spilled))

    for module in (convolution, norm, scan):
        monkeypatch.setattr(module, "launch", compile_only)

    def compile_for(architecture, name, forward=True, **inputs):
        gpu = SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", architecture, 32),
            get_current_device=lambda: architecture,  # Triton keeps what it compiled by device
            get_current_stream=lambda device: 0,
        )
        monkeypatch.setattr(driver, "_active", gpu)
        arguments = [inputs.get(a) for a in ARGUMENTS[name]]
        run, gradient = table.KERNELS[name]
        if forward:
            run(*arguments)
        elif name == "add_rms_norm":
            gradient(inputs["grad"], None, inputs["x"], inputs["weight"], inputs["eps"])
        else:
            differentiable = 11 if name == "selective_scan" else 3
            gradient(inputs["grad"], *arguments, [True] * differentiable)
        return found

    return compile_for


ARGUMENTS = {
    "selective_scan": SCAN.inputs._fields,
    "causal_conv1d": CAUSAL.inputs._fields,
    "depthwise_conv2d": GRID.inputs._fields,
    "add_rms_norm": NORM.inputs._fields,
}


def assert_fits(found):
    for kernel, (registers, spilled) in found.items():
        assert spilled == 0, f"{kernel} spills {spilled} bytes"
        assert registers <= MOST_REGISTERS.get(kernel, 255), kernel


def scan_of(dtype, without=PLAIN):
    """As in Vim-S: 197 tokens, 16 states; fewer channels and pictures, which only change the number of programs."""
    inputs = scan_inputs(197, 128, 16, without=without)
    inputs |= {name: inputs[name].to(dtype) for name in ("u", "delta", "B", "C", "z") if name in inputs}
    return {**inputs, "reverse": False, "log_A": True}


@pytest.fixture(params=[0, pytest.param(512, marks=pytest.mark.slow)], ids=["whole", "in segments"])
def cut(request, monkeypatch):
    """Whether the scan is cut into segments: where it has fewer programs than this."""
    from skimba.ops.backends.triton.tuning import CONFIGURATIONS

    monkeypatch.setitem(CONFIGURATIONS, "scan", replace(CONFIGURATIONS["scan"], programs=request.param))


def test_the_scan_of_a_dense_model_fits(compiled, cut):
    assert_fits(compiled(90, "selective_scan", **scan_of(torch.bfloat16)))


def test_its_gradients_fit(compiled, cut):
    inputs = scan_of(torch.bfloat16)
    assert_fits(compiled(80, "selective_scan", forward=False, grad=inputs["u"], **inputs))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", GPUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "without", [(), ("hold",), ("order", "gap", "missing", "step"), ("D", "z", "delta_bias", *PLAIN)]
)
def test_the_scan_fits_with_other_options(compiled, cut, without, dtype, architecture):
    inputs = scan_of(dtype, without)
    compiled(architecture, "selective_scan", **inputs)
    found = compiled(architecture, "selective_scan", forward=False, grad=inputs["u"], **inputs)
    assert all(spilled == 0 for _, spilled in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("architecture", GPUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_convolutions_and_the_norm_fit(compiled, dtype, architecture):
    row, grid = conv_inputs(2, 50, 64, taps=(4,)), conv_inputs(2, 7, 7, 64, taps=(7, 7))
    tokens = conv_inputs(2, 30, 64, taps=(7, 7))
    calls = [
        ("causal_conv1d", {**row, "reverse": False}),
        ("causal_conv1d", {**row, "reverse": True, "source": a_source(2, 80, 50)}),
        ("depthwise_conv2d", grid),
        ("depthwise_conv2d", {**tokens, "source": a_source(2, 49, 30).unflatten(1, (7, 7))}),
    ]
    for name, inputs in calls:
        inputs["x"] = inputs["x"].to(dtype)
        compiled(architecture, name, **inputs)
        assert_fits(compiled(architecture, name, forward=False, grad=torch.empty_like(inputs["x"]), **inputs))
    x, weight = torch.randn(2, 50, 384).to(dtype), torch.randn(384)
    for residual in (None, x.float()):
        compiled(architecture, "add_rms_norm", x=x, residual=residual, weight=weight, eps=1e-5)
    total = {"x": x.float(), "weight": weight, "eps": 1e-5}
    assert_fits(compiled(architecture, "add_rms_norm", forward=False, grad=x, **total))
