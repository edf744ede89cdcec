"""The selective scan by Triton: from checked tensors to the arguments of its kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skimba.ops.backends.triton.kernels.scan_backward import Gradients, scan_backward
from skimba.ops.backends.triton.kernels.scan_forward import Results, carry, scan
from skimba.ops.backends.triton.kernels.scan_steps import Operands, Sizes
from skimba.ops.backends.triton.launch import cdiv, launch
from skimba.ops.backends.triton.tuning import CONFIGURATIONS
from skimba.ops.inputs import SCAN, ScanInputs
from skimba.ops.library import hand_back

Row = tuple[Tensor, int, int]  # a tensor, its strides on the batch and the tokens
_NAMES = tuple(SCAN.operands)
_DATA = tuple(name for name, operand in SCAN.operands.items() if operand.data)
_DIFFERENTIABLE = tuple(_NAMES[i] for i in SCAN.differentiable)


class Call:
    """The operands of a call, and what its kernels have in common.

    Attributes:
        s: the inputs as they were given.
        dtype: of the data: theirs, or float32 if they are mixed.
        x, sizes, constants: arguments of the kernels.
    """

    def __init__(self, s: ScanInputs) -> None:
        self.s = s
        self.batch, self.length, self.channels = s.u.shape
        self.states = s.A.shape[1]
        given: dict[str, Tensor | None] = {name: getattr(s, name) for name in _NAMES}
        dtypes = {x.dtype for name in _DATA if (x := given[name]) is not None}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        self.gap_per_channel = s.gap is not None and s.gap.dim() == 3
        data = {name: _row(given[name], self.dtype) for name in _DATA}
        counts = {name: _row(given[name], torch.float32) for name in ("step", "hold", "missing")}
        gap = _row(s.gap, torch.float32)
        self.x = Operands(
            **data,
            **counts,
            gap=None if self.gap_per_channel else gap,
            gaps=gap if self.gap_per_channel else None,
            order=None if s.order is None else _row(s.order.expand(self.batch, -1), torch.int32),
            A=_whole(s.A.T),
            D=_whole(s.D),
            bias=_whole(s.delta_bias),
        )
        self.sizes = Sizes(self.length, self.channels, self.states)
        self.padded = 1 << (self.states - 1).bit_length()  # states of a tile, a power of two
        self.constants: dict[str, Any] = {"FLAGS": (s.reverse, s.log_A), "STATES": self.padded}

    def new(self, *shape: int) -> Tensor:
        """Float32 ``(b, *shape)`` to write to."""
        return self.s.u.new_empty(self.batch, *shape, dtype=torch.float32)


def _row(x: Tensor | None, dtype: torch.dtype) -> Row | None:
    """Unit stride on the last of three axes, which is all that the kernels need."""
    if x is None:
        return None
    x = x.to(dtype)
    if x.dim() == 3 and x.stride(2) != 1:
        x = x.contiguous()
    return x, x.stride(0), x.stride(1)


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float().contiguous()


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


def _row_like(x: Tensor | None, dtype: torch.dtype) -> Row | None:
    """To write to."""
    return None if x is None else _row(_like(x, dtype), dtype)


def selective_scan(*arguments: Any) -> Tensor:
    call = Call(ScanInputs(*arguments))
    y = _like(call.s.u, call.dtype)
    _forward(call, Results(y=_row(y, y.dtype), saved=None, ends=None, times=None))
    return y.to(call.s.u.dtype)


def _forward(call: Call, out: Results, every: int = 1) -> None:
    """Write the output, or the state before every ``every``-th step.

    Where there are few programs, segments of the sequence run beside each other: first each from an empty state, to find what
    it makes of that; then again from the states that follow.
    """
    chosen = CONFIGURATIONS["scan"]
    programs = call.batch * cdiv(call.channels, chosen.channels)
    segments, steps, starts = 1, call.length, None
    options: dict[str, Any] = {**call.constants, "CHANNELS": chosen.channels, "warps": chosen.warps}
    if programs < chosen.programs and call.length > chosen.steps:
        segments, steps = cdiv(call.length, chosen.steps), chosen.steps
        starts, times = call.new(segments, call.states, call.channels), call.new(segments, call.channels)
        ends = Results(y=None, saved=None, ends=starts, times=times)
        launch(scan, programs * segments, call.s.u, call.x, ends, None, call.sizes, segments, steps, EVERY=1, **options)
        launch(carry, programs, call.s.u, call.x, starts, times, call.sizes, segments, **options)
    launch(
        scan, programs * segments, call.s.u, call.x, out, starts, call.sizes, segments, steps, EVERY=every, **options
    )


def selective_scan_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *inputs, wanted = arguments
    call = Call(ScanInputs(*inputs))
    chosen = CONFIGURATIONS["scan_backward" if call.s.hold is None else "scan_backward_held"]
    saved = call.new(cdiv(call.length, chosen.steps), call.states, call.channels)
    _forward(call, Results(y=None, saved=saved, ends=None, times=None), chosen.steps)
    tiles = cdiv(call.channels, chosen.channels)
    aside = call.new(tiles, chosen.steps, call.padded, chosen.channels)
    out = _gradients(call, tiles, wanted[_DIFFERENTIABLE.index("hold")])
    launch(
        scan_backward,
        call.batch * tiles,
        grad,
        call.x,
        _row(grad, call.dtype),
        saved,
        aside,
        out,
        call.sizes,
        EVERY=chosen.steps,
        **call.constants,
        CHANNELS=chosen.channels,
        warps=chosen.warps,
        registers=chosen.registers,
    )
    found = _summed(out)
    return hand_back(grad, [found[name] for name in _DIFFERENTIABLE], [inputs[i] for i in SCAN.differentiable], wanted)


def _gradients(call: Call, tiles: int, hold: bool) -> Gradients:
    """Memory for them. ``hold``: whether its gradient is wanted, which alone takes time of its own."""
    s, x = call.s, call.x
    rows = {name: _row_like(getattr(s, name), call.dtype) for name in ("u", "delta", "z")}
    rows["gaps"] = _row_like(s.gap if call.gap_per_channel else None, torch.float32)
    by_token = {"gap": x.gap, "step": x.step, "hold": x.hold if hold else None}
    by_channel = {"D": x.D, "bias": x.bias}
    return Gradients(
        **rows,
        **{name: call.new(tiles, call.length, call.states) for name in ("B", "C")},
        **{name: None if given is None else call.new(tiles, call.length) for name, given in by_token.items()},
        **{name: None if given is None else call.new(call.channels) for name, given in by_channel.items()},
        A=call.new(call.states, call.channels),
    )


def _summed(out: Gradients) -> dict[str, Tensor | None]:
    """Over tiles, and for parameters over samples; by the names of the inputs."""
    rows = {name: None if x is None else x[0] for name, x in zip(("u", "delta", "z", "gap"), out[:4], strict=True)}
    by_token = {name: getattr(out, name) for name in ("B", "C", "gap", "step", "hold")}
    by_channel = {"A": out.A, "D": out.D, "delta_bias": out.bias}
    found = {
        **rows,
        **{name: x.sum(1) for name, x in by_token.items() if x is not None},
        **{name: x.sum(0) for name, x in by_channel.items() if x is not None},
    }
    found["A"] = found["A"].T
    return {name: found.get(name) for name in _DIFFERENTIABLE}
