"""Operators: each with a readable reference, C++ kernels, and a table of its backends."""

from skimba.ops._checks import default_backend
from skimba.ops.add_rms_norm import add_rms_norm
from skimba.ops.convolution import causal_conv1d, depthwise_conv2d
from skimba.ops.selective_scan import BACKENDS, selective_scan
from skimba.ops.source import mean_shown, show

__all__ = [
    "BACKENDS",
    "add_rms_norm",
    "causal_conv1d",
    "default_backend",
    "depthwise_conv2d",
    "mean_shown",
    "selective_scan",
    "show",
]
