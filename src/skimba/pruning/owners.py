"""Who inherits the positions of a token that goes. A function is one entry of :data:`OWNER`.

Every function takes ``(tokens, gone, kept)`` — the tokens after a block, places ``(b i)`` of those that go and ``(b k)`` of those
that stay — and returns ``(b i)`` places in ``kept``, never an extra token's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skimba.pruning.likeness import cosine, grid_place
from skimba.tokens import Tokens, take

DISTANCE_COST = 0.1  # chosen on 1,000 training images of Fashion-MNIST among 0.02, 0.1, 0.5
Owner = Callable[[Tokens, Tensor, Tensor], Tensor]


def most_similar(tokens: Tokens, gone: Tensor, kept: Tensor) -> Tensor:
    """Place in ``kept (b k)`` of the token whose stream is most similar (by cosine) to each of ``gone (b i)``."""
    likeness = cosine(tokens, gone, kept)
    return likeness.masked_fill(take(tokens.is_extra, kept)[:, None], -torch.inf).argmax(-1)


def nearest(tokens: Tokens, gone: Tensor, kept: Tensor) -> Tensor:
    """Place in ``kept (b k)`` of the token whose position in the sequence is nearest to each of ``gone (b i)``."""
    position = tokens.position
    distance = (take(position, gone)[:, :, None] - take(position, kept)[:, None]).abs()
    return distance.masked_fill(take(tokens.is_extra, kept)[:, None], tokens.layout.full_length).argmin(-1)


def similar_near(tokens: Tokens, gone: Tensor, kept: Tensor) -> Tensor:
    """Place in ``kept (b k)`` of the token with the largest cosine to each of ``gone (b i)``, less DISTANCE_COST for each step
    between them on the grid. Ours: an owner from far away moves what it stands for within the scan.
    """
    apart = ((take(place, gone)[:, :, None] - take(place, kept)[:, None]).abs() for place in grid_place(tokens))
    likeness = cosine(tokens, gone, kept) - DISTANCE_COST * sum(apart)
    return likeness.masked_fill(take(tokens.is_extra, kept)[:, None], -torch.inf).argmax(-1)


def heirs(kept: Tensor, gone: Tensor, owner: Tensor) -> Tensor:
    """For every token ``(b l)`` the place in ``kept`` of its heir: itself if kept, ``owner (b i)`` for those in ``gone``."""
    own = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    index, heir = torch.cat([kept, gone], 1), torch.cat([own, owner], 1)
    return torch.zeros_like(index).scatter(1, index, heir)


OWNER: dict[str, Owner] = {"similar": most_similar, "nearest": nearest, "similar_near": similar_near}
