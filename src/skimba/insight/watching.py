"""A model watched block by block: what its scans and convolutions got and gave. The model itself is not touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skimba.layers.mixer import Block, Mixer
from skimba.models import TokenModel
from skimba.models.evaluation import evaluating
from skimba.ops import observe
from skimba.ops.inputs import CausalInputs, GridInputs, ScanInputs
from skimba.tokens import Groups, Tokens


@dataclass(frozen=True, eq=False)
class ScanCall:
    """One scan as it ran.

    Attributes:
        walk: its order over the grid, a key of :data:`skimba.tokens.walks.WALKS`.
        scan: what :func:`skimba.selective_scan` got.
        output: ``(b l e)`` what it gave.
        conv: what the convolution before it got.
    """

    walk: str
    scan: ScanInputs
    output: Tensor
    conv: CausalInputs | GridInputs


@dataclass(frozen=True, eq=False)
class BlockRun:
    """One block as it ran.

    Attributes:
        number: 1-based.
        tokens: after the block, before tokens are removed, with the block's :class:`~skimba.tokens.ScanRecord`.
        left: the tokens that go on.
        scans: in the order in which they ran.
    """

    number: int
    tokens: Tokens
    left: Tokens
    scans: tuple[ScanCall, ...]


def check_block(model: TokenModel, block: int) -> None:
    """Raise ValueError unless the model has that block (1-based)."""
    if not 1 <= block <= len(model.layers):
        raise ValueError(f"block must be 1 … {len(model.layers)}, got {block}")


@contextmanager
def plain_mode() -> Iterator[None]:
    """No inference mode, whose tensors cannot be differentiated, and no gradients unless they are switched on again."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def watch(model: TokenModel, images: Tensor, last: int | None = None) -> Iterator[BlockRun]:
    """The blocks of a model one after the other, up to block ``last`` (1-based; all if None), in evaluation mode.

    Args:
        images: ``(b c height width)``.

    Raises:
        ValueError: the images keep different numbers of tokens.
    """
    with evaluating(model):
        tokens = model.embed(images)
        for number in range(1, (last or len(model.layers)) + 1):
            run = _watch_block(model, tokens, number)
            yield run
            tokens = run.left


def watch_block(model: TokenModel, images: Tensor, block: int) -> BlockRun:
    """One block (1-based); raises ValueError where the model has no such block."""
    check_block(model, block)
    return list(watch(model, images, block))[-1]


def _watch_block(model: TokenModel, tokens: Tokens, number: int) -> BlockRun:
    calls: list[tuple[Any, Any]] = []
    layer = model.layers[number - 1]
    assert isinstance(layer, Block)
    assert isinstance(layer.mixer, Mixer)
    with observe(lambda name, inputs, output: calls.append((inputs, output))):
        after = layer(tokens, record=True)
    conv, scans = None, []
    for inputs, output in calls:
        if isinstance(inputs, CausalInputs | GridInputs):
            conv = inputs
        elif isinstance(inputs, ScanInputs):
            assert conv is not None
            scans.append((inputs, output, conv))
    named = zip(layer.mixer.walks, scans, strict=True)
    left = after if model.reducer is None else model.reducer(after, number)
    if isinstance(left, Groups):
        raise ValueError("the images keep different numbers of tokens: look at them one by one")
    return BlockRun(number, after, left, tuple(ScanCall(walk, *scan) for walk, scan in named))
