"""The base of all reductions: values that carry the settings they read, and are called at each stage.

What remains stands in scan order, the extra tokens (class token, registers) at their true places, owning only themselves; a
reduction whose ``keeps_order`` is false leaves the image tokens in another order, as methods made for attention do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from skimba.pruning.learned import LearnedScore
from skimba.tokens import Alignment, Tokens


@dataclass(frozen=True)
class Stage:
    """The request to a reduction.

    Attributes:
        count: image tokens that stay.
        alignment: what the layers that follow do about missing positions.
        seed: for whatever is random.
        score: ``tokens -> (b l)``: a trained score of this stage, for a reduction whose score is learned.
    """

    count: int
    alignment: Alignment
    seed: int = 0
    score: Callable[[Tokens], Tensor] | None = None


@dataclass(frozen=True)
class Reduction(ABC):
    """A way of removing tokens. Derive a frozen dataclass; or give :class:`Method` a plain function
    ``(tokens, stage) -> tokens``."""

    @property
    def keeps_order(self) -> bool:
        """Whether the tokens that are left stay in scan order. Otherwise nothing can be aligned."""
        return True

    @property
    def reads_scan(self) -> bool:
        """Whether it reads ``tokens.scan``."""
        return False

    @property
    def least_share(self) -> float:
        """Of the tokens that one stage must keep at least."""
        return 0.0

    @property
    def weighs(self) -> bool:
        """Whether it has :meth:`weights`."""
        return False

    @abstractmethod
    def __call__(self, tokens: Tokens, stage: Stage) -> Tokens:
        """The tokens that are left."""

    def weights(self, tokens: Tokens, stage: Stage) -> Tensor:
        """``(b m)``, not negative: what each image token, or each that could go, counts for its image."""
        raise NotImplementedError

    def scorer(self, width: int, blocks: Iterable[int], seed: int) -> LearnedScore | None:
        """The networks that one pruned model trains with its own weights."""
        return None

    def check(self, alignment: Alignment) -> None:
        """Raise ValueError if the two do not go together."""
        if not self.keeps_order and (alignment.scan, alignment.conv) != (Alignment().scan, Alignment().conv):
            raise ValueError(
                f"{self} leaves tokens out of scan order, where nothing can be aligned: align must be NONE, got {alignment}"
            )

    def settings(self) -> dict[str, Any]:
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def functions(self) -> list[str]:
        """Names of the settings that are user-defined functions."""
        return [name for name, value in self.settings().items() if callable(value)]


@dataclass(frozen=True)
class Own(Reduction):
    """A reduction that is a user-defined function, ``(tokens, stage) -> tokens``."""

    function: Callable[[Tokens, Stage], Tokens]

    @property
    def reads_scan(self) -> bool:
        return True

    def __call__(self, tokens: Tokens, stage: Stage) -> Tokens:
        return self.function(tokens, stage)


def partition(goes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places where ``goes (b l)`` is false and those, ``count`` in every row, where it is true, each in order."""
    length = goes.shape[1]  # distinct keys: the order does not depend on a stable sort
    order = (goes * length + torch.arange(length, device=goes.device)).argsort(dim=1)
    return order[:, : length - count], order[:, length - count :]


def kept_places(before: Tokens, after: Tokens) -> Tensor:
    """``(b k)`` place in ``before`` of every token of ``after``."""
    return (before.position[:, None] == after.position[:, :, None]).byte().argmax(2)
