"""Backbones of dense models: models without a head whose features are maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.models import TokenModel
from skimba.tokens import Restore, Shown, Tokens, start_restore


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a batch on their way through the blocks; all have equally many tokens.

    Attributes:
        rows: ``(i)`` which images of the batch.
        tokens: theirs.
        restore: what is remembered of their full grids.
    """

    rows: Tensor
    tokens: Tokens
    restore: Restore

    def shown(self) -> Shown:
        """What the full grid shows now."""
        return self.restore.show(self.tokens)


class DenseBackbone(TokenModel):
    """A model without a head whose features are maps.

    Attributes:
        beside: names of modules that stand beside the blocks, and that a reducer does not make cheaper.
        channels: of each map.
        strides: of each map, in pixels.
        restore: how positions without a token are shown: a key of :data:`skimba.tokens.RESTORE`, or a function like those in it.
    """

    beside: frozenset[str] = frozenset()
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    restore: str | Callable[[], Restore] = "last"

    def forward_maps(self, images: Tensor) -> list[Tensor]:
        """``(b c height width)`` -> maps ``(b d h w)``, the finest first."""
        raise NotImplementedError

    def forward_head(self, tokens: Tokens) -> Tensor:
        """``(b d)``: the mean over the tokens; there is no head."""
        return tokens.stream.mean(1)

    def start(self, images: Tensor) -> list[Part]:
        """All tokens of a batch, as one part."""
        rows = torch.arange(images.shape[0], device=images.device)
        return [Part(rows, self.embed(images), start_restore(self.restore))]

    def run(self, parts: Sequence[Part], first: int, last: int) -> list[Part]:
        """The blocks ``first`` to ``last`` (1-based), with the reducer after each."""
        for number in range(first, last + 1):
            parts = [after for part in parts for after in self._step(part, number)]
        return list(parts)

    def _step(self, part: Part, number: int) -> list[Part]:
        """One block, and the reducer after it; where images keep different numbers of tokens, several parts."""
        reducer = self.reducer
        tokens = self.layers[number - 1](part.tokens, record=reducer is not None and reducer.reads_scan(number))
        reduced = tokens if reducer is None else reducer(tokens, number)
        if isinstance(reduced, Tokens):
            restore = part.restore
            if reduced.layout is not tokens.layout:
                restore = restore.reduced(tokens, reduced)
            return [Part(part.rows, reduced, restore)]
        after = []
        for rows, mine in zip(reduced.rows, reduced.parts, strict=True):
            restore = part.restore.images(rows).reduced(tokens.images(rows), mine)
            after.append(Part(part.rows[rows], mine, restore))
        return after


def join(parts: Sequence[Part], read: Callable[[Part], Tensor]) -> Tensor:
    """What ``read`` makes of the parts, ``(i ...)`` each, in the order of the batch."""
    if len(parts) == 1:
        return read(parts[0])
    return torch.cat([read(part) for part in parts])[torch.cat([part.rows for part in parts]).argsort()]


def token_map(parts: Sequence[Part], read: Callable[[Tensor], Tensor]) -> Tensor:
    """``(b c h w)``: what ``read``, which maps each token ``(... d)`` by itself, makes of the grid that the parts show.

    It reads each distinct value once.
    """
    grid = parts[0].tokens.grid

    def one(part: Part) -> Tensor:
        shown = part.shown()
        return Shown(read(shown.values), shown.index).full()

    return join(parts, one).transpose(1, 2).unflatten(2, grid)
