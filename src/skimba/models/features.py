"""Feature maps on the way through the blocks, on the full grid wherever tokens were removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.tokens import Groups, Restore, Shown, Tokens, start_restore, take


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a batch on their way through the blocks, all with the same number of tokens.

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

    def go_on(self, before: Tokens, after: Tokens | Groups) -> list[Part]:
        """The same images after a block that gave ``before`` and the reducer that made ``after`` of it.

        Several parts where images keep different numbers of tokens.
        """
        if isinstance(after, Tokens):
            removed = after.layout is not before.layout
            return [Part(self.rows, after, self.restore.reduced(before, after) if removed else self.restore)]
        return [
            Part(self.rows[rows], tokens, self.restore.images(rows).reduced(before.images(rows), tokens))
            for rows, tokens in zip(after.rows, after.parts, strict=True)
        ]


def start_parts(tokens: Tokens, restore: str | Callable[[], Restore]) -> list[Part]:
    """All tokens of a batch, as one part; ``restore`` as :func:`skimba.tokens.start_restore` takes it."""
    rows = torch.arange(tokens.x.shape[0], device=tokens.x.device)
    return [Part(rows, tokens, start_restore(restore))]


def as_features(parts: Sequence[Part]) -> Tokens | Groups:
    """The tokens of all parts, as a model's ``forward_features`` gives them."""
    if len(parts) == 1:
        return parts[0].tokens
    return Groups(tuple(part.rows for part in parts), tuple(part.tokens for part in parts))


def join(parts: Sequence[Part], read: Callable[[Part], Tensor]) -> Tensor:
    """The results of ``read`` on the parts, ``(i ...)`` each, in the order of the batch."""
    if len(parts) == 1:
        return read(parts[0])
    return torch.cat([read(part) for part in parts])[torch.cat([part.rows for part in parts]).argsort()]


def token_list(parts: Sequence[Part], read: Callable[[Tensor], Tensor]) -> Tensor:
    """``(b h*w c)``: what ``read``, which maps each token ``(... d)`` by itself, makes of the grid that the parts show.

    It reads each distinct value once.
    """

    def one(part: Part) -> Tensor:
        shown = part.shown()
        return Shown(read(shown.values), shown.index).full()

    return join(parts, one)


def token_map(parts: Sequence[Part], read: Callable[[Tensor], Tensor]) -> Tensor:
    """:func:`token_list` as a map ``(b c h w)``."""
    return token_list(parts, read).transpose(1, 2).unflatten(2, parts[0].tokens.grid)


def extra_tokens(parts: Sequence[Part], read: Callable[[Tensor], Tensor]) -> Tensor:
    """``(b x c)``: what ``read`` makes of the extra tokens."""
    return join(parts, lambda part: read(take(part.tokens.stream, part.tokens.extra_places)))


FORMATS: dict[str, Callable[[Sequence[Part], Callable[[Tensor], Tensor]], Tensor]] = {
    "NCHW": token_map,
    "NLC": token_list,
}
