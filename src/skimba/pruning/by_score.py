"""Reductions by score: the most important tokens stay; the others are dropped, or merged into an owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.pruning.choices import choose, named
from skimba.pruning.learned import Learned, LearnedScore
from skimba.pruning.likeness import cosine
from skimba.pruning.owners import OWNER, Owner, heirs
from skimba.pruning.reduction import Reduction, Stage, kept_places, partition
from skimba.pruning.scores import READS_NO_SCAN, SCORE, Score
from skimba.pruning.selection import SELECTION, Selection
from skimba.tokens import Alignment, Tokens, take


@dataclass(frozen=True)
class ByScore(Reduction):
    """The base of the reductions by score.

    Attributes:
        score: a key of :data:`SCORE`, or a function ``(tokens, count, seed) -> (b l)``: larger stays.
        selection: a key of :data:`SELECTION` or a function: which tokens stay by their scores.
    """

    score: str | Score | Learned = "clip"
    selection: str | Selection = "highest"

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", named(SCORE, self.score, "score"))
        object.__setattr__(self, "selection", named(SELECTION, self.selection, "selection"))

    @property
    def reads_scan(self) -> bool:
        return choose(SCORE, self.score, "score") not in READS_NO_SCAN

    @property
    def weighs(self) -> bool:
        return True

    def scorer(self, width: int, blocks: Iterable[int], seed: int) -> LearnedScore | None:
        score = choose(SCORE, self.score, "score")
        return score.scorer(width, blocks, seed) if isinstance(score, Learned) else None

    def scores(self, tokens: Tokens, stage: Stage) -> Tensor:
        """``(b l)`` the score of every token."""
        score = stage.score
        if score is not None:
            return score(tokens)
        found: Tensor = choose(SCORE, self.score, "score")(tokens, stage.count, stage.seed)
        if found.shape != tokens.x.shape[:2]:
            raise ValueError(
                f"a score must be one number for each token, {tuple(tokens.x.shape[:2])}, got {tuple(found.shape)}"
            )
        return found

    def weights(self, tokens: Tokens, stage: Stage) -> Tensor:
        """``(b m)``: the score of each image token above the least one's."""
        score = take(self.scores(tokens, stage), tokens.image_places).float()
        return score - score.amin(1, keepdim=True)

    def split(self, tokens: Tokens, score: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
        """The tokens that stay ``(b k)`` and those that go ``(b i)``, both in scan order."""
        image = tokens.image_places
        select = choose(SELECTION, self.selection, "selection")
        chosen = take(image, select(take(score, image), stage.count, tokens, image))
        goes = torch.zeros_like(score, dtype=torch.bool).scatter(1, image, True).scatter(1, chosen, False)
        return partition(goes, tokens.layout.image_count - stage.count)


@dataclass(frozen=True)
class Drop(ByScore):
    """Tokens that go are dropped; where the alignment needs it, their positions go to an owner.

    Attributes:
        owner: a key of :data:`OWNER` or a function; ``"similar"`` if None. Only with an alignment that needs owners (``HOLD``).
        order: ``"scan"``, or ``"score"``: the image tokens that stay stand best first, as EViT (arXiv 2202.07800) leaves them.
    """

    owner: str | Owner | None = None
    order: str = "scan"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.owner is not None:
            object.__setattr__(self, "owner", named(OWNER, self.owner, "owner"))
        if self.order not in ("scan", "score"):
            raise ValueError(f"order must be 'scan' or 'score', got {self.order!r}")

    @property
    def keeps_order(self) -> bool:
        return self.order == "scan"

    def check(self, alignment: Alignment) -> None:
        super().check(alignment)
        if self.owner is not None and not alignment.needs_owner:
            raise ValueError(
                f"owner={self.owner!r} has no effect: with this alignment no position of a dropped token has an owner"
            )

    def __call__(self, tokens: Tokens, stage: Stage) -> Tokens:
        score = self.scores(tokens, stage)
        kept, gone = self.split(tokens, score, stage)
        heir = None
        if stage.alignment.needs_owner:
            owner = choose(OWNER, "similar" if self.owner is None else self.owner, "owner")
            heir = heirs(kept, gone, owner(tokens, gone, kept))
        reduced = tokens.keep(kept, heir, stage.alignment)
        if self.keeps_order:
            return reduced
        score, image = take(score, kept_places(tokens, reduced)), reduced.image_places
        return reduced.rearrange(image, take(image, take(score, image).argsort(dim=1, descending=True, stable=True)))


@dataclass(frozen=True)
class Merge(ByScore):
    """Each token that goes is averaged, by the positions owned, into its owner.

    Attributes:
        owner: a key of :data:`OWNER` or a function.
    """

    owner: str | Owner = "similar"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "owner", named(OWNER, self.owner, "owner"))

    def __call__(self, tokens: Tokens, stage: Stage) -> Tokens:
        kept, gone = self.split(tokens, self.scores(tokens, stage), stage)
        owner = choose(OWNER, self.owner, "owner")(tokens, gone, kept)
        return tokens.merge(kept, heirs(kept, gone, owner), stage.alignment)


@dataclass(frozen=True)
class Hybrid(ByScore):
    """Half of the tokens that go, those most similar to one that is kept, merge into it; the other half vanishes from ``x`` and
    merges in the residual stream only. Source: ToR (arXiv 2410.14725), which leaves open which half is which.
    """

    def __call__(self, tokens: Tokens, stage: Stage) -> Tokens:
        kept, gone = self.split(tokens, self.scores(tokens, stage), stage)
        likeness = cosine(tokens, gone, kept).masked_fill(take(tokens.is_extra, kept)[:, None], -torch.inf)
        best, owner = likeness.max(-1)
        vanishing = take(gone, best.argsort(dim=1, stable=True)[:, : gone.shape[1] // 2])
        worth = torch.ones(tokens.x.shape[:2], device=gone.device).scatter(1, vanishing, 0.0)
        return tokens.merge(kept, heirs(kept, gone, owner), stage.alignment, worth)
