"""Operators: each with a readable reference in plain PyTorch, C++ kernels for CPUs, and a place in torch's dispatcher."""

from skimba.ops.add_rms_norm import add_rms_norm
from skimba.ops.backends import BACKENDS, default_backend, native
from skimba.ops.convolution import causal_conv1d, depthwise_conv2d
from skimba.ops.int8_linear import int8_linear, int8_weight
from skimba.ops.observe import observe
from skimba.ops.sampling import sample_maps
from skimba.ops.selective_scan import ScanTime, selective_scan
from skimba.ops.source import mean_shown, show

__all__ = [
    "BACKENDS",
    "ScanTime",
    "add_rms_norm",
    "causal_conv1d",
    "default_backend",
    "depthwise_conv2d",
    "int8_linear",
    "int8_weight",
    "mean_shown",
    "native",
    "observe",
    "sample_maps",
    "selective_scan",
    "show",
]
