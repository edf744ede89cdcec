"""What a model calls between its blocks, if it was given one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from skimba.tokens import Groups, Tokens


@runtime_checkable
class Reducer(Protocol):
    """What a model calls after each block, if it was given one. A class that derives from this one inherits the defaults."""

    @property
    def head_only(self) -> bool:
        """Whether, for logits, the last block computes only what the head reads; the reducer is not called after it then."""
        return False

    @property
    def counts_by_image(self) -> bool:
        """Whether the images of a batch may keep different numbers of tokens, so that FLOPs depend on the images."""
        return False

    @property
    def scorer(self) -> nn.Module | None:
        """A learned part. The model owns it too: it trains, moves and is saved with the model, under the name ``scorer``."""
        return None

    def reads_scan(self, block: int) -> bool:
        """Whether the reducer wants ``tokens.scan`` of that block (1-based)."""
        return False

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        """The tokens that go on to the next block; in groups where images keep different numbers."""
        ...


REDUCER_MEMBERS = ("head_only", "counts_by_image", "scorer", "reads_scan", "__call__")


def check_reducer(reducer: Reducer | None) -> None:
    """Raise TypeError, naming what is missing, unless ``reducer`` is None or has every part of the protocol."""
    if reducer is not None and not isinstance(reducer, Reducer):
        missing = [name for name in REDUCER_MEMBERS if not hasattr(reducer, name)]
        raise TypeError(
            f"a reducer has {', '.join(REDUCER_MEMBERS)}; {type(reducer).__name__} has no {', '.join(missing)}"
        )
