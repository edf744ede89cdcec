from skimba.ops import _reference
from torch import Tensor
def selective_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, gap=None, step=None, *, reverse=False, backend="auto"):
    return _reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, gap, step, reverse)
def causal_conv1d(x, weight, bias, *, reverse=False, backend="auto"):
    return _reference.causal_conv1d(x, weight, bias, reverse)
def depthwise_conv2d(x, weight, bias, *, backend="auto"):
    return _reference.depthwise_conv2d(x, weight, bias)
