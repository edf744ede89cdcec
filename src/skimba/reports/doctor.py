"""What this installation can do, and what it cannot do and why."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from skimba.ops import native
from skimba.ops.backends import mamba_ssm, triton

PACKAGES = ("skimba", "torch", "torchvision", "timm", "safetensors", "huggingface_hub", "numpy", "triton")


def examine() -> dict[str, str]:
    """Names and findings, in the order to show them in."""
    findings = {"python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            findings[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            findings[package] = "not installed"
    findings["torch threads"] = str(torch.get_num_threads())
    if native.UNAVAILABLE is None:
        findings["backend"] = "cpu (native kernels)"
        findings["instruction set"] = f"{native.in_use()} of {', '.join(native.variants())}"
        findings["kernel threads"] = "OpenMP, torch's number" if native.has_openmp() else "one: built without OpenMP"
    else:
        findings["backend"] = "reference (slow)"
        findings["no cpu backend"] = native.UNAVAILABLE
    findings["models on cuda"] = _on_cuda()
    findings["triton backend"] = f"no: {triton.UNAVAILABLE}" if triton.UNAVAILABLE else "kernels for GPUs"
    findings["mamba_ssm backend"] = f"no: {why}" if (why := mamba_ssm.reason()) else "scans on GPUs, if it is named"
    return findings


def _on_cuda() -> str:
    if not torch.cuda.is_available():
        return "no: torch finds no CUDA device"
    if why := triton.UNAVAILABLE or triton.too_old(torch.device("cuda")):
        return f"run on the reference backend (slow): {why}"
    return f"run on the triton backend: {torch.cuda.get_device_name()}"
