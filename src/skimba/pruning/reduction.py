"""How tokens are taken out of a sequence: dropped, merged into their owner, or matched in pairs.

All orders are kept: what remains stands in scan order, the class token at its true place, owning only itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.tokens import Alignment, Tokens, take

Owner = Callable[[Tokens, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stage:
    """What a reduction is asked to do.

    Attributes:
        count: image tokens that stay.
        alignment: what the layers that follow do about missing positions.
        score: ``tokens -> (b l)`` importance, larger stays.
        owner: who inherits the positions of a removed token; a function like those in :data:`OWNER`.
    """

    count: int
    alignment: Alignment
    score: Callable[[Tokens], Tensor]
    owner: Owner


def cosine(stream: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Cosines ``(b i j)`` of the tokens ``a (b i)`` with the tokens ``b (b j)`` of ``stream (b l d)``."""
    unit = F.normalize(stream.float(), dim=-1)
    return take(unit, a) @ take(unit, b).transpose(1, 2)


def is_class(tokens: Tokens, index: Tensor) -> Tensor:
    """Whether each of the tokens ``index (b i)`` is the class token."""
    if tokens.class_position is None:
        return torch.zeros_like(index, dtype=torch.bool)
    return take(tokens.position, index) == tokens.class_position


def most_similar(tokens: Tokens, gone: Tensor, kept: Tensor) -> Tensor:
    """Place in ``kept (b k)`` of the token whose stream is most similar (by cosine) to each of ``gone (b i)``."""
    likeness = cosine(tokens.stream, gone, kept)
    return likeness.masked_fill(is_class(tokens, kept)[:, None], -torch.inf).argmax(-1)


def nearest(tokens: Tokens, gone: Tensor, kept: Tensor) -> Tensor:
    """Place in ``kept (b k)`` of the token whose position in the sequence is nearest to each of ``gone (b i)``."""
    position = tokens.position
    distance = (take(position, gone)[:, :, None] - take(position, kept)[:, None]).abs()
    return distance.masked_fill(is_class(tokens, kept)[:, None], tokens.layout.full_length).argmin(-1)


def _split(tokens: Tokens, stage: Stage) -> tuple[Tensor, Tensor]:
    """The tokens that stay ``(b k)`` and those that go ``(b i)``, by score, both in scan order."""
    batch, length = tokens.x.shape[:2]
    score = stage.score(tokens)
    if score.shape != (batch, length):
        raise ValueError(
            f"an importance must return a score for each token, {(batch, length)}, got {tuple(score.shape)}"
        )
    protected = is_class(tokens, torch.arange(length, device=score.device).expand(batch, -1))
    order = score.masked_fill(protected, torch.inf).argsort(dim=1, descending=True, stable=True)
    stays = length - tokens.layout.image_count + stage.count
    return order[:, :stays].sort(dim=1).values, order[:, stays:].sort(dim=1).values


def heirs(kept: Tensor, gone: Tensor, owner: Tensor) -> Tensor:
    """For every token ``(b l)`` the place in ``kept`` of its heir: itself if kept, ``owner (b i)`` for those in ``gone``."""
    own = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    index, heir = torch.cat([kept, gone], 1), torch.cat([own, owner], 1)
    return torch.zeros_like(index).scatter(1, index, heir)


def drop(tokens: Tokens, stage: Stage) -> Tokens:
    """Keep the most important tokens; the values of the rest vanish. With ``hold`` their positions go to an owner."""
    kept, gone = _split(tokens, stage)
    heir = None
    if stage.alignment.scan == "hold" or stage.alignment.conv == "held":
        heir = heirs(kept, gone, stage.owner(tokens, gone, kept))
    return tokens.keep(kept, heir, stage.alignment)


def merge(tokens: Tokens, stage: Stage) -> Tokens:
    """Keep the most important tokens; each of the rest is averaged, by size, into its owner."""
    kept, gone = _split(tokens, stage)
    return tokens.merge(kept, heirs(kept, gone, stage.owner(tokens, gone, kept)), stage.alignment)


def bipartite(tokens: Tokens, stage: Stage) -> Tokens:
    """Merge the most similar pairs of an even and an odd image token, in the place of the odd one (ToMe, arXiv 2210.09461,
    section 3; R-MeeTo, arXiv 2412.12496). No importance is asked for.

    One matching can take out half of the tokens. Where rounding asks for a token more (keep 0.5 of 98 with an even count), a
    second matching takes it.
    """
    while (surplus := tokens.layout.image_count - stage.count) > 0:
        tokens = _merge_pairs(tokens, min(surplus, tokens.layout.image_count // 2), stage.alignment)
    return tokens


def _merge_pairs(tokens: Tokens, pairs: int, alignment: Alignment) -> Tokens:
    batch = tokens.x.shape[0]
    image = torch.arange(tokens.layout.image_count, device=tokens.x.device).expand(batch, -1)
    class_rank = tokens.layout.class_rank
    if class_rank is not None:  # step over the class token
        first = class_rank[:, None] if isinstance(class_rank, Tensor) else class_rank
        image = image + (image >= first).long()
    sources, targets = image[:, ::2], image[:, 1::2]
    likeness, partner = cosine(tokens.stream, sources, targets).max(-1)
    merged = likeness.argsort(dim=1, descending=True, stable=True)[:, :pairs]
    gone = take(sources, merged)
    stays = torch.ones(tokens.x.shape[:2], dtype=torch.bool, device=gone.device).scatter(1, gone, False)
    rank = stays.long().cumsum(1) - 1  # place of every kept token among the kept ones
    kept = (~stays).long().argsort(dim=1, stable=True)[:, : tokens.x.shape[1] - pairs]
    owner = take(rank, take(targets, take(partner, merged)))
    return tokens.merge(kept, heirs(kept, gone, owner), alignment)


REDUCTION: dict[str, Callable[[Tokens, Stage], Tokens]] = {"drop": drop, "merge": merge, "bipartite": bipartite}
OWNER: dict[str, Owner] = {"similar": most_similar, "nearest": nearest}
