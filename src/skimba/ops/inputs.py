"""The inputs of each operator. Their meaning is documented with its public function."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from torch import Tensor

from skimba.ops.operands import Signature, count, data, index, int8, parameter


class ScanInputs(NamedTuple):
    """Of :func:`skimba.ops.selective_scan`."""

    u: Annotated[Tensor, data("b l e")]
    delta: Annotated[Tensor, data("b l e")]
    A: Annotated[Tensor, parameter("e n")]
    B: Annotated[Tensor, data("b l n")]
    C: Annotated[Tensor, data("b l n")]
    D: Annotated[Tensor | None, parameter("e")] = None
    z: Annotated[Tensor | None, data("b l e")] = None
    delta_bias: Annotated[Tensor | None, parameter("e")] = None
    gap: Annotated[Tensor | None, parameter("b l", "b l e")] = None
    step: Annotated[Tensor | None, parameter("b l")] = None
    hold: Annotated[Tensor | None, parameter("b l")] = None
    missing: Annotated[Tensor | None, count("b l")] = None
    order: Annotated[Tensor | None, index("l", "b l")] = None
    reverse: bool = False
    log_A: bool = False


class CausalInputs(NamedTuple):
    """Of :func:`skimba.ops.causal_conv1d`."""

    x: Annotated[Tensor, data("b l e")]
    weight: Annotated[Tensor, parameter("e k")]
    bias: Annotated[Tensor, parameter("e")]
    source: Annotated[Tensor | None, index("b L")] = None
    reverse: bool = False


class GridInputs(NamedTuple):
    """Of :func:`skimba.ops.depthwise_conv2d`: ``x (b l e)`` with a source, ``(b h w e)`` without."""

    x: Annotated[Tensor, data("b h w e", "b l e")]
    weight: Annotated[Tensor, parameter("e kh kw")]
    bias: Annotated[Tensor, parameter("e")]
    source: Annotated[Tensor | None, index("b h w")] = None


class NormInputs(NamedTuple):
    """Of :func:`skimba.ops.add_rms_norm`."""

    x: Annotated[Tensor, data("b l d")]
    residual: Annotated[Tensor | None, parameter("b l d")]
    weight: Annotated[Tensor, parameter("d")]
    eps: float = 1e-5


class Int8Inputs(NamedTuple):
    """Of :func:`skimba.ops.int8_linear`."""

    x: Annotated[Tensor, data("b l d")]
    weight: Annotated[Tensor, int8("e d")]
    scale: Annotated[Tensor, count("e")]
    bias: Annotated[Tensor | None, parameter("e")] = None


class SampleInputs(NamedTuple):
    """Of :func:`skimba.ops.sample_maps`; ``grids`` holds height and width of each map."""

    value: Annotated[Tensor, data("b m heads c")]
    locations: Annotated[Tensor, parameter("b q heads maps points 2")]
    weights: Annotated[Tensor, parameter("b q heads maps points")]
    grids: list[int]


SCAN, CAUSAL, GRID, NORM, INT8, SAMPLE = map(
    Signature, (ScanInputs, CausalInputs, GridInputs, NormInputs, Int8Inputs, SampleInputs)
)
