"""The reduction by pairs: the most similar merge, whatever their scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.pruning.choices import choose, named
from skimba.pruning.likeness import LIKENESS, Likeness, frame_number, opposite
from skimba.pruning.owners import heirs
from skimba.pruning.partners import PARTNERS, Partners
from skimba.pruning.reduction import Reduction, Stage, kept_places, partition
from skimba.tokens import Tokens, take
from skimba.tokens.layout import walk_steps

PairWalk = Callable[[Tokens], Tensor]
APART = 1e4  # how much less alike two frames are where pairs stay inside one: more than any likeness


@dataclass(frozen=True)
class Pairs(Reduction):
    """Pairs of an even and an odd image token along a walk merge, the most alike first, in the place of the odd one (ToMe,
    arXiv 2210.09461, section 3; R-MeeTo, arXiv 2412.12496).

    One matching can take out half of the tokens; there are as many as the count asks for.

    Attributes:
        walk: a key of :data:`WALK`, or a function ``tokens -> (b m)``: places of the image tokens.
        likeness: a key of :data:`LIKENESS` or a function: which pairs merge first.
        partners: a key of :data:`PARTNERS` or a function: which odd tokens an even one is compared with.
        once: as published: a schedule may not ask a stage for more than one matching takes out (but for one token, where a
            share of one half is rounded).
        order: ``"scan"``, or ``"sides"``: all even image tokens that are left stand before the odd ones: ToMe as it is, which
            mixes the order on purpose.
        within: ``"clip"``: a token may merge with one of another frame, at the same place of the next one, say; or ``"frame"``:
            in space only. Two frames then merge only where each is down to one token. Pictures have one frame.
    """

    walk: str | PairWalk = "snake"
    likeness: str | Likeness = "ward"
    once: bool = False
    order: str = "scan"
    partners: str | Partners = "all"
    within: str = "clip"

    def __post_init__(self) -> None:
        object.__setattr__(self, "walk", named(WALK, self.walk, "walk"))
        object.__setattr__(self, "likeness", named(LIKENESS, self.likeness, "likeness"))
        object.__setattr__(self, "partners", named(PARTNERS, self.partners, "partners"))
        if not isinstance(self.once, bool):
            raise TypeError(f"once must be True or False, got {self.once!r}")
        if self.order not in ("scan", "sides"):
            raise ValueError(f"order must be 'scan' or 'sides', got {self.order!r}")
        if self.within not in ("clip", "frame"):
            raise ValueError(f"within must be 'clip' or 'frame', got {self.within!r}")

    @property
    def keeps_order(self) -> bool:
        return self.order == "scan"

    @property
    def weighs(self) -> bool:
        return self.within == "clip"  # in a frame of one token there is no best partner

    @property
    def least_share(self) -> float:
        return 0.5 if self.once else 0.0

    def sides(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Places ``(b i)`` of the tokens that may go and ``(b j)`` of those that they may merge into."""
        image = choose(WALK, self.walk, "walk")(tokens)
        return image[:, ::2], image[:, 1::2]

    def likenesses(self, tokens: Tokens, sources: Tensor, targets: Tensor) -> Tensor:
        """``(b i j)`` with ``targets (b j)``, the same for all, or ``(b i j)``, for each its own."""
        found: Tensor = choose(LIKENESS, self.likeness, "likeness")(tokens, sources, targets)
        wanted = (*sources.shape, targets.shape[-1])
        if found.shape != wanted:
            raise ValueError(f"a likeness must be one number for each pair, {wanted}, got {tuple(found.shape)}")
        if self.within == "clip":
            return found
        frame = frame_number(tokens)
        return found - APART * (take(frame, sources)[:, :, None] != opposite(frame, targets))

    def __call__(self, tokens: Tokens, stage: Stage) -> Tokens:
        reduced = tokens
        while (surplus := reduced.layout.image_count - stage.count) > 0:
            reduced = self._match(reduced, min(surplus, self._most(reduced)), stage)
        if self.keeps_order:
            return reduced
        odd = torch.zeros(tokens.x.shape[:2], device=tokens.x.device).scatter(1, self.sides(tokens)[1], 1.0)
        odd, image = take(odd, kept_places(tokens, reduced)), reduced.image_places
        return reduced.rearrange(image, take(image, take(odd, image).argsort(dim=1, stable=True)))

    def best(self, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """``(b i)`` each: places of the tokens that may go, how alike they and their best partner are, and its place."""
        sources, targets = self.sides(tokens)
        partners = choose(PARTNERS, self.partners, "partners")(tokens, sources, targets)
        likeness, number = self.likenesses(tokens, sources, partners).max(-1)
        own = partners.dim() == 3
        return sources, likeness, partners.gather(-1, number[..., None])[..., 0] if own else take(partners, number)

    def _most(self, tokens: Tokens) -> int:
        """How many pairs one matching can make. Inside frames it leaves out as many as there are frames: a token that is
        alone in its frame has no partner."""
        count, frames = tokens.layout.image_count, math.prod(tokens.grid[:-2])
        if self.within == "clip" or frames == 1 or count <= frames:
            return count // 2
        return max(count // 2 - frames, 1)

    def _match(self, tokens: Tokens, pairs: int, stage: Stage) -> Tokens:
        sources, likeness, partner = self.best(tokens)
        merged = likeness.argsort(dim=1, descending=True, stable=True)[:, :pairs]
        gone = take(sources, merged)
        goes = torch.zeros(tokens.x.shape[:2], dtype=torch.bool, device=gone.device).scatter(1, gone, True)
        rank = (~goes).long().cumsum(1) - 1  # place of every kept token among the kept ones
        kept, _ = partition(goes, pairs)
        owner = take(rank, take(partner, merged))
        return tokens.merge(kept, heirs(kept, gone, owner), stage.alignment)

    def weights(self, tokens: Tokens, stage: Stage) -> Tensor:
        """``(b m)``: how much less alike each token on one side and its best partner are than the likest pair."""
        likeness = self.best(tokens)[1].float()
        return likeness.amax(1, keepdim=True) - likeness


def sequence(tokens: Tokens) -> Tensor:
    """As they stand in the sequence: even and odd are columns of the grid, and find no neighbours above and below."""
    return tokens.image_places


def snake(tokens: Tokens) -> Tensor:
    """Over the grid, every second row backwards. On the whole grid the two sides are the fields of a checkerboard: each token
    finds all its neighbours on the other side. Ours."""
    image = tokens.image_places
    cell = take(tokens.position - tokens.extras_before, image)
    step = walk_steps("snake", tokens.grid, ()).to(cell.device).argsort()[cell]
    return take(image, step.argsort(dim=1))


WALK: dict[str, PairWalk] = {"sequence": sequence, "snake": snake}
