"""A batch whose images no longer have the same number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.tokens.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Groups:
    """A batch whose images no longer have the same number of tokens, split into parts that do.

    Attributes:
        rows: for each part the images ``(i)`` of the batch that are in it.
        parts: their tokens.
    """

    rows: tuple[Tensor, ...]
    parts: tuple[Tokens, ...]

    def map(self, go_on: Callable[[Tokens], Tokens | Groups]) -> Groups:
        """Every part processed further; parts that split again are flattened."""
        rows: list[Tensor] = []
        parts: list[Tokens] = []
        for mine, part in zip(self.rows, self.parts, strict=True):
            result = go_on(part)
            inner = (
                result
                if isinstance(result, Groups)
                else Groups((torch.arange(mine.shape[0], device=mine.device),), (result,))
            )
            rows += [mine[further] for further in inner.rows]
            parts += inner.parts
        return Groups(tuple(rows), tuple(parts))

    def join(self, read: Callable[[Tokens], Tensor]) -> Tensor:
        """The results of ``read`` on the parts, ``(i ...)`` each, in the order of the batch."""
        return torch.cat([read(part) for part in self.parts])[torch.cat(self.rows).argsort()]
