"""A scan as what it is to its input: a linear map, for fixed time steps, B and C.

The convolution before it is one too, for fixed signs and sizes of what its silu gets: ``silu(x) = sigmoid(x) · x``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.insight.watching import BlockRun
from skimba.ops import mean_shown, selective_scan, show
from skimba.ops.inputs import CAUSAL, GRID, SCAN, CausalInputs, GridInputs, ScanInputs
from skimba.ops.operands import Signature

Part = Literal["skip", "gate", "convolution"]
PARTS: tuple[Part, ...] = ("skip", "gate", "convolution")
BLOCK_VALUES = 2**21  # of one block of impulses: 8 MiB


@dataclass(frozen=True, eq=False)
class LinearConv:
    """A depthwise convolution and its silu, for fixed factors of the silu.

    Attributes:
        call: its inputs, of one image.
        factor: ``(1 S e)`` sigmoid of what the silu gets, at every place that the convolution visits.
    """

    call: CausalInputs | GridInputs
    factor: Tensor

    @classmethod
    def of(cls, call: CausalInputs | GridInputs) -> LinearConv:
        return cls(call, torch.sigmoid(_visit(call, _tokens(call), call.bias)))

    def __call__(self, x: Tensor, with_bias: bool = False) -> Tensor:
        """``(i m e)`` tokens -> ``(i m e)``."""
        source = self.call.source
        y = self.factor * _visit(self.call, x, self.call.bias if with_bias else None)
        return y if source is None else mean_shown(y, source.flatten(1).expand(len(x), -1), x.shape[1])


def _tokens(call: CausalInputs | GridInputs) -> Tensor:
    return call.x.flatten(1, 2) if call.x.dim() == 4 else call.x


def _visit(call: CausalInputs | GridInputs, x: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of tokens ``(i m e)`` before its silu, at every place that it visits: ``(i S e)``."""
    source = None if call.source is None else call.source.flatten(1)
    shown = x if source is None else show(x, source.expand(len(x), -1))
    if isinstance(call, CausalInputs):
        width, length = call.weight.shape[1], shown.shape[1]
        kernel = call.weight.flip(1) if call.reverse else call.weight
        padded = F.pad(shown, (0, 0, 0, width - 1) if call.reverse else (0, 0, width - 1, 0))
        y = sum(kernel[:, tap] * padded[:, tap : tap + length] for tap in range(width))
        assert isinstance(y, Tensor)
    else:
        grid = call.x.shape[1:3] if call.source is None else call.source.shape[1:]
        channels, height, width = call.weight.shape
        maps = shown.unflatten(1, grid).permute(0, 3, 1, 2)
        y = F.conv2d(maps, call.weight[:, None], padding=(height // 2, width // 2), groups=channels)
        y = y.flatten(2).transpose(1, 2)
    return y if bias is None else y + bias


@dataclass(frozen=True, eq=False)
class LinearScan:
    """One scan of one image, with the parts around it that are asked for.

    Attributes:
        scan: its inputs, of one image, without D and z.
        length: tokens of the sequence; a walk in windows scans padding after them.
        read: ``(1 m e)`` what the map reads: the scan's input, or with the convolution that one's.
        skip: ``(e)`` D.
        gate: ``(1 l e)``.
        conv: the convolution.
    """

    scan: ScanInputs
    length: int
    read: Tensor
    skip: Tensor | None = None
    gate: Tensor | None = None
    conv: LinearConv | None = None

    def __call__(self, x: Tensor, with_bias: bool = False) -> Tensor:
        """``(i m e)`` -> ``(i l e)``; linear without the convolution's bias."""
        u = x if self.conv is None else self.conv(x, with_bias)[:, : self.scan.u.shape[1]]
        y = selective_scan(**_repeated(self.scan._replace(u=u))._asdict())
        if self.skip is not None:
            y = y + self.skip * u
        y = y[:, : self.length]
        return y if self.gate is None else y * self.gate

    @property
    def output(self) -> Tensor:
        """``(l e)`` what the map makes of what it reads."""
        return self(self.read, with_bias=True)[0]

    @property
    def rest(self) -> Tensor:
        """``(l e)`` what no token brings: the convolution's bias, and padding."""
        alone = self.read.clone()
        alone[:, : self.length] = 0
        return self(alone, with_bias=True)[0]

    def columns(self) -> Iterator[tuple[slice, Tensor]]:
        """The map by blocks of its columns: ``(j l e)``, what an impulse at each of the tokens ``j`` becomes."""
        channels = self.read.shape[2]
        block = max(1, BLOCK_VALUES // (self.read.shape[1] * channels))
        for start in range(0, self.length, block):
            tokens = slice(start, min(start + block, self.length))
            count = tokens.stop - tokens.start
            impulses = self.read.new_zeros(count, self.read.shape[1], channels)
            impulses[torch.arange(count), torch.arange(start, tokens.stop)] = 1
            yield tokens, self(impulses)

    def rows(self, tokens: Tensor) -> Tensor:
        """Some rows of the map, by one backward call: ``tokens (r)`` -> ``(r l e)``."""
        asked = self.read.new_zeros(len(tokens), self.length, self.read.shape[2])
        asked[torch.arange(len(tokens)), tokens] = 1
        return self.backwards(asked)

    def backwards(self, y: Tensor) -> Tensor:
        """The transposed map: ``(r l e)`` of what comes out -> ``(r l e)`` of the tokens read."""
        with torch.enable_grad():
            x = self.read.new_zeros(len(y), *self.read.shape[1:]).requires_grad_()
            (found,) = torch.autograd.grad(self(x), x, y)
        return found[:, : self.length]


def linear_scan(run: BlockRun, number: int, image: int, include: Sequence[Part] = ()) -> LinearScan:
    """Scan ``number`` of a watched block, of one image, in float32 (or float64).

    Raises:
        ValueError: an unknown part.
    """
    if unknown := [part for part in include if part not in PARTS]:
        raise ValueError(f"unknown part {unknown[0]!r} of a scan; known: {', '.join(PARTS)}")
    call, record = run.scans[number], run.tokens.scan
    assert record is not None
    assert record.z is not None
    scan: ScanInputs = _of_image(call.scan, image)
    parts = replace(
        LinearScan(scan._replace(D=None, z=None), run.tokens.x.shape[1], scan.u),
        skip=scan.D if "skip" in include else None,
        gate=F.silu(record.z[image : image + 1].to(scan.u.dtype)) if "gate" in include else None,
    )
    if "convolution" not in include:
        return parts
    conv = LinearConv.of(_of_image(call.conv, image))
    return replace(parts, conv=conv, read=_tokens(conv.call))


def of_channels(scan: LinearScan, channels: Sequence[int]) -> LinearScan:
    """Those channels of a scan; raises ValueError where there is no such channel."""
    count = scan.read.shape[2]
    for channel in channels:
        if not 0 <= channel < count:
            raise ValueError(f"channels must be 0 … {count - 1}, got {channel}")
    index = torch.tensor(list(channels), dtype=torch.int64, device=scan.read.device)

    def last(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[..., index]

    s = scan.scan
    by_channel: dict[str, Any] = {
        "u": last(s.u),
        "delta": last(s.delta),
        "A": s.A[index],
        "delta_bias": last(s.delta_bias),
    }
    gap = last(s.gap) if s.gap is not None and s.gap.dim() == 3 else s.gap
    conv = scan.conv
    if conv is not None:
        call = conv.call._replace(x=conv.call.x[..., index], weight=conv.call.weight[index], bias=conv.call.bias[index])
        conv = LinearConv(call, conv.factor[..., index])
    return LinearScan(
        s._replace(**by_channel, gap=gap), scan.length, scan.read[..., index], last(scan.skip), last(scan.gate), conv
    )


def _of_image(inputs: Any, image: int) -> Any:
    """The inputs of an operator for one image, floating ones in float32 at least."""
    found = {}
    for name, x in _batched(inputs).items():
        x = x[image : image + 1]
        found[name] = x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
    return inputs._replace(**found)


def _repeated(inputs: ScanInputs) -> ScanInputs:
    """All inputs for as many images as the first has."""
    found: dict[str, Any] = {name: x.expand(len(inputs.u), *x.shape[1:]) for name, x in _batched(inputs).items()}
    return inputs._replace(**found)


def _batched(inputs: Any) -> dict[str, Tensor]:
    """The inputs that have a batch axis."""
    operands = SIGNATURES[type(inputs)].operands
    given = {name: getattr(inputs, name) for name in operands}
    return {
        name: x
        for name, x in given.items()
        if x is not None and any(axes[0] == "b" and len(axes.split()) == x.dim() for axes in operands[name].axes)
    }


SIGNATURES: dict[type, Signature] = {ScanInputs: SCAN, CausalInputs: CAUSAL, GridInputs: GRID}
