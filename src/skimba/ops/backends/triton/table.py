"""The table of what the Triton backend runs. Importing it imports Triton."""

from __future__ import annotations

from skimba.ops.backends.triton import convolution, norm, scan
from skimba.ops.inputs import CausalInputs, GridInputs
from skimba.ops.library import ADD_RMS_NORM, CAUSAL_CONV1D, DEPTHWISE_CONV2D, SELECTIVE_SCAN, Kernels

KERNELS: dict[str, Kernels] = {
    SELECTIVE_SCAN.name: (scan.selective_scan, scan.selective_scan_backward),
    CAUSAL_CONV1D.name: convolution.kernels(CausalInputs, convolution.causal_taps),
    DEPTHWISE_CONV2D.name: convolution.kernels(GridInputs, convolution.grid_taps),
    ADD_RMS_NORM.name: (norm.add_rms_norm, norm.add_rms_norm_backward),
}
