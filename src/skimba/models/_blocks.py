"""The seam between a model and whatever reduces its tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import nn

from skimba.tokens import Tokens


class Reducer(Protocol):
    """What a model calls after each block. The model knows nothing else of it."""

    def reads_scan(self, block: int) -> bool:
        """Whether the reducer wants ``tokens.scan`` of that block (1-based)."""

    def __call__(self, tokens: Tokens, block: int) -> Tokens:
        """The tokens that go on to the next block."""


def run_blocks(blocks: Iterable[nn.Module], tokens: Tokens, reducer: Reducer | None) -> Tokens:
    """All blocks in turn, with the reducer after each."""
    for number, block in enumerate(blocks, start=1):
        tokens = block(tokens, record=reducer is not None and reducer.reads_scan(number))
        if reducer is not None:
            tokens = reducer(tokens, number)
    return tokens
