"""How tokens are taken out of a sequence: dropped, merged into their owner, or matched in pairs.

What remains stands in scan order, the extra tokens (class token, registers) at their true places, owning only themselves. The
reductions in :data:`DISORDERS` leave the image tokens in another order, as methods made for attention do: what that costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skimba.pruning.likeness import Likeness, cosine, grid_place
from skimba.pruning.selection import Selection, top
from skimba.tokens import Alignment, Tokens, take
from skimba.tokens.layout import walk_steps

DISTANCE_COST = 0.1  # chosen on 1,000 training images of Fashion-MNIST among 0.02, 0.1, 0.5
Owner = Callable[[Tokens, Tensor, Tensor], Tensor]
Walk = Callable[[Tokens], Tensor]


@dataclass(frozen=True)
class Stage:
    """What a reduction is asked to do.

    Attributes:
        count: image tokens that stay.
        alignment: what the layers that follow do about missing positions.
        score: ``tokens -> (b l)`` importance, larger stays.
        owner: who inherits the positions of a removed token; a function like those in :data:`OWNER`.
        selection: which tokens stay by their scores; a function like those in :data:`SELECTION`.
        likeness: how alike two tokens are, where pairs are matched; a function like those in :data:`LIKENESS`.
    """

    count: int
    alignment: Alignment
    score: Callable[[Tokens], Tensor]
    owner: Owner
    selection: Selection = top
    likeness: Likeness = cosine


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
    row, column = grid_place(tokens)
    steps = sum((take(place, gone)[:, :, None] - take(place, kept)[:, None]).abs() for place in (row, column))
    likeness = cosine(tokens, gone, kept) - DISTANCE_COST * steps
    return likeness.masked_fill(take(tokens.is_extra, kept)[:, None], -torch.inf).argmax(-1)


def _image_tokens(tokens: Tokens) -> Tensor:
    """``(b m)`` places of the image tokens: all but the extra ones."""
    return tokens.image_places


def _split(tokens: Tokens, stage: Stage) -> tuple[Tensor, Tensor]:
    """The tokens that stay ``(b k)`` and those that go ``(b i)``, by score, both in scan order."""
    batch, length = tokens.x.shape[:2]
    score = stage.score(tokens)
    if score.shape != (batch, length):
        raise ValueError(
            f"an importance must return a score for each token, {(batch, length)}, got {tuple(score.shape)}"
        )
    image = _image_tokens(tokens)
    chosen = take(image, stage.selection(take(score, image), stage.count, tokens, image))
    goes = torch.zeros_like(score, dtype=torch.bool).scatter(1, image, True).scatter(1, chosen, False)
    return _partition(goes, tokens.layout.image_count - stage.count)


def _partition(goes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places where ``goes (b l)`` is false and those, ``count`` in every row, where it is true, each in order."""
    length = goes.shape[1]  # keys that differ: the order does not hang on whether a sort is stable
    order = (goes * length + torch.arange(length, device=goes.device)).argsort(dim=1)
    stays = goes.shape[1] - count
    return order[:, :stays], order[:, stays:]


def heirs(kept: Tensor, gone: Tensor, owner: Tensor) -> Tensor:
    """For every token ``(b l)`` the place in ``kept`` of its heir: itself if kept, ``owner (b i)`` for those in ``gone``."""
    own = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    index, heir = torch.cat([kept, gone], 1), torch.cat([own, owner], 1)
    return torch.zeros_like(index).scatter(1, index, heir)


def drop(tokens: Tokens, stage: Stage) -> Tokens:
    """Keep the most important tokens; the values of the rest vanish. With ``hold`` their positions go to an owner."""
    kept, gone = _split(tokens, stage)
    heir = None
    if stage.alignment.needs_owner:
        heir = heirs(kept, gone, stage.owner(tokens, gone, kept))
    return tokens.keep(kept, heir, stage.alignment)


def drop_by_score(tokens: Tokens, stage: Stage) -> Tokens:
    """As :func:`drop`, but the image tokens that stay stand in the order of their scores, best first: EViT (arXiv 2202.07800)
    as it is, without its fused token. Attention does not mind."""
    scored = stage.score(tokens)
    reduced = drop(tokens, replace(stage, score=lambda _: scored))
    score = take(scored, kept_places(tokens, reduced))
    image = _image_tokens(reduced)
    return reduced.rearrange(image, take(image, take(score, image).argsort(dim=1, descending=True, stable=True)))


def kept_places(before: Tokens, after: Tokens) -> Tensor:
    """``(b k)`` place in ``before`` of every token of ``after``."""
    return (before.position[:, None] == after.position[:, :, None]).byte().argmax(2)


def merge(tokens: Tokens, stage: Stage) -> Tokens:
    """Keep the most important tokens; each of the rest is averaged, by size, into its owner."""
    kept, gone = _split(tokens, stage)
    return tokens.merge(kept, heirs(kept, gone, stage.owner(tokens, gone, kept)), stage.alignment)


def hybrid(tokens: Tokens, stage: Stage) -> Tokens:
    """Half of the less important tokens, those most similar to the one that is kept, merge into it; the other half vanishes
    from ``x`` and merges in the residual stream only. Source: ToR (arXiv 2410.14725), which leaves open which half is which.
    """
    kept, gone = _split(tokens, stage)
    likeness = cosine(tokens, gone, kept).masked_fill(take(tokens.is_extra, kept)[:, None], -torch.inf)
    best, owner = likeness.max(-1)
    vanishing = take(gone, best.argsort(dim=1, stable=True)[:, : gone.shape[1] // 2])
    worth = torch.ones(tokens.x.shape[:2], device=gone.device).scatter(1, vanishing, 0.0)
    return tokens.merge(kept, heirs(kept, gone, owner), stage.alignment, worth)


def bipartite(tokens: Tokens, stage: Stage) -> Tokens:
    """Merge the most alike pairs of an even and an odd image token, in the place of the odd one (ToMe, arXiv 2210.09461,
    section 3; R-MeeTo, arXiv 2412.12496). No importance is asked for.

    One matching can take out half of the tokens. Where rounding asks for a token more (keep 0.5 of 98 with an even count), a
    second matching takes it.
    """
    return _match(tokens, stage, _image_tokens)


def checkerboard(tokens: Tokens, stage: Stage) -> Tokens:
    """As :func:`bipartite`, but even and odd along a walk over the grid that takes every second row backwards. On the whole
    grid these are the fields of a checkerboard: each token finds all its neighbours on the other side, where even and odd
    tokens of the sequence are columns and find none above and below. Matched as often as the count asks for. Ours.
    """
    return _match(tokens, stage, _snake)


def bipartite_by_side(tokens: Tokens, stage: Stage) -> Tokens:
    """As :func:`bipartite`, but afterwards all even image tokens that are left stand before the odd ones: ToMe as it is, which
    mixes the order on purpose."""
    odd = torch.zeros(tokens.x.shape[:2], device=tokens.x.device).scatter(1, _image_tokens(tokens)[:, 1::2], 1.0)
    reduced = bipartite(tokens, stage)
    odd = take(odd, kept_places(tokens, reduced))
    image = _image_tokens(reduced)
    return reduced.rearrange(image, take(image, take(odd, image).argsort(dim=1, stable=True)))


def _snake(tokens: Tokens) -> Tensor:
    """``(b m)`` places of the image tokens along a walk over the grid that takes every second row backwards."""
    image = _image_tokens(tokens)
    cell = take(tokens.position - tokens.extras_before, image)
    step = walk_steps("snake", tokens.grid, ()).to(cell.device).argsort()[cell]
    return take(image, step.argsort(dim=1))


def _match(tokens: Tokens, stage: Stage, walk: Walk) -> Tokens:
    """Merge pairs, in as many matchings as it takes."""
    while (surplus := tokens.layout.image_count - stage.count) > 0:
        tokens = _merge_pairs(tokens, min(surplus, tokens.layout.image_count // 2), stage, walk)
    return tokens


def _merge_pairs(tokens: Tokens, pairs: int, stage: Stage, walk: Walk) -> Tokens:
    image = walk(tokens)
    sources, targets = image[:, ::2], image[:, 1::2]
    likeness, partner = stage.likeness(tokens, sources, targets).max(-1)
    merged = likeness.argsort(dim=1, descending=True, stable=True)[:, :pairs]
    gone = take(sources, merged)
    goes = torch.zeros(tokens.x.shape[:2], dtype=torch.bool, device=gone.device).scatter(1, gone, True)
    rank = (~goes).long().cumsum(1) - 1  # place of every kept token among the kept ones
    kept, _ = _partition(goes, pairs)
    owner = take(rank, take(targets, take(partner, merged)))
    return tokens.merge(kept, heirs(kept, gone, owner), stage.alignment)


def weights(tokens: Tokens, stage: Stage) -> Tensor:
    """``(b m)``, not negative: how much each image token counts for its image: its importance above the least one's."""
    score = take(stage.score(tokens), _image_tokens(tokens)).float()
    return score - score.amin(1, keepdim=True)


def pair_weights(tokens: Tokens, stage: Stage, walk: Walk) -> Tensor:
    """``(b m)``, not negative: how much less alike each token on one side and its best partner are than the likest pair."""
    image = walk(tokens)
    likeness = stage.likeness(tokens, image[:, ::2], image[:, 1::2]).amax(-1).float()
    return likeness.amax(1, keepdim=True) - likeness


REDUCTION: dict[str, Callable[[Tokens, Stage], Tokens]] = {
    "drop": drop,
    "merge": merge,
    "bipartite": bipartite,
    "checkerboard": checkerboard,
    "hybrid": hybrid,
    "drop_by_score": drop_by_score,
    "bipartite_by_side": bipartite_by_side,
}
# What matches pairs, and the walk whose even and odd tokens are the two sides: no importance is asked for.
PAIRS: dict[str, Walk] = {"bipartite": _image_tokens, "bipartite_by_side": _image_tokens, "checkerboard": _snake}
MATCH_ONCE = {"bipartite", "bipartite_by_side"}  # as published: at one stage half of the tokens can go
DISORDERS = {"drop_by_score", "bipartite_by_side"}  # leave the tokens out of scan order: only align="none" fits
OWNER: dict[str, Owner] = {"similar": most_similar, "nearest": nearest, "similar_near": similar_near}
