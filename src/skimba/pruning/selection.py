"""Which tokens stay, given their scores. A function is one entry of :data:`SELECTION`.

Every function takes ``(score, count, tokens, image)`` — scores of the image tokens ``(b m)``, larger is more important; how
many stay; the tokens; the place ``(b m)`` of each image token in the sequence — and returns the ``count`` that stay
``(b count)``, as numbers 0 … m-1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skimba.pruning.likeness import local_window
from skimba.tokens import Tokens, take

Selection = Callable[[Tensor, int, Tokens, Tensor], Tensor]


def highest(score: Tensor, count: int, tokens: Tokens, image: Tensor) -> Tensor:
    """The highest scores of the whole image."""
    return _ranked(score)[:, :count]


def segments(score: Tensor, count: int, tokens: Tokens, image: Tensor) -> Tensor:
    """The best of each of ``count`` equal segments of the sequence: no gap is longer than two segments."""
    present = score.shape[1]
    segment = torch.arange(present, device=score.device) * count // present
    ranked = _ranked(score)
    by_segment = take(segment.expand_as(ranked), ranked).argsort(dim=1, stable=True)  # the best of each comes first
    first = (torch.arange(count, device=score.device) * present + count - 1) // count
    return take(ranked, by_segment[:, first])


def windows(score: Tensor, count: int, tokens: Tokens, image: Tensor) -> Tensor:
    """The best of each local window of the grid, then the second best of each, and so on."""
    ranked = _ranked(score)
    window = take(take(local_window(tokens), image), ranked)  # (b m), best token first
    same = window[:, :, None] == window[:, None]
    better = same.tril(-1).sum(2)  # tokens of the same window with a higher score
    return take(ranked, better.argsort(dim=1, stable=True)[:, :count])


def _ranked(score: Tensor) -> Tensor:
    return score.argsort(dim=1, descending=True, stable=True)


SELECTION: dict[str, Selection] = {"highest": highest, "segments": segments, "windows": windows}
