"""The reducer that pruning installs: it applies a method after the blocks of a schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from skimba.models import TokenModel
from skimba.pruning.calibration import Measured
from skimba.pruning.learned import LearnedScore
from skimba.pruning.method import Method
from skimba.pruning.reduction import Stage, kept_places
from skimba.pruning.schedule import COUNT_STEP, Schedule, Share, counts_left
from skimba.tokens import Groups, Tokens


@dataclass(frozen=True)
class Pruner:
    """The reducer that :func:`skimba.prune` installs. It holds no state but a learned score.

    Attributes:
        method: how tokens are chosen, removed and made up for.
        amounts: after that many blocks (1-based), how many image tokens stay.
        seed: for random scores, and for learned ones before their training.
        measured: the measured result of a schedule that was found for a target.
        counts: image tokens at first and after each stage, at the image size that the model was made for; None where images
            keep different numbers.
        scorer: the learned score, if the method has one; the model that is pruned so owns it too.
    """

    method: Method
    amounts: Schedule
    seed: int = 0
    measured: Measured | None = field(default=None, compare=False, repr=False)
    counts: tuple[int, ...] | None = field(default=None, compare=False, repr=False)
    scorer: LearnedScore | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, model: TokenModel, amounts: Schedule, method: Method, seed: int, measured: Measured | None = None
    ) -> Pruner:
        """A pruner for that model."""
        scorer = method.part.scorer(model.num_features, amounts, seed)
        if scorer is not None:
            parameter = next(model.parameters())
            scorer.to(parameter.device, parameter.dtype).train(model.training)
        counts = None
        if method.counts is None:
            first = math.prod(model.grid)
            counts = (first, *counts_left(amounts, first, model.class_token_count > 0).values())
        return cls(method, amounts, seed, measured, counts, scorer)

    @property
    def schedule(self) -> dict[int, Any]:
        """``{block: share or amount}``, as :func:`skimba.prune` takes it."""
        return {block: amount.share if isinstance(amount, Share) else amount for block, amount in self.amounts.items()}

    @property
    def counts_by_image(self) -> bool:
        """Whether images keep different numbers of tokens."""
        return self.method.counts is not None

    @property
    def head_only(self) -> bool:
        """Whether the last block computes only what the head reads; not where nothing is removed: that is the dense model."""
        return self.method.head_only and any(amount.removes for amount in self.amounts.values())

    def to_dict(self) -> dict[str, Any]:
        """Method, schedule and seed as plain data for JSON or TOML (block numbers as text);
        ``skimba.prune(model, **skimba.pruning.read_settings(plain))`` makes this pruner again.

        Raises:
            ValueError: a part of the method is a user-defined function.
        """
        schedule = {str(block): amount.plain() for block, amount in self.amounts.items()}
        return {"method": self.method.to_dict(), "schedule": schedule, "seed": self.seed}

    def __str__(self) -> str:
        stages = ", ".join(
            f"{amount.share:.3g} of the tokens after block {block}"
            if isinstance(amount, Share)
            else f"{amount} after block {block}"
            for block, amount in self.amounts.items()
        )
        counts = (
            "each image its own number" if self.counts is None else " → ".join(map(str, self.counts)) + " image tokens"
        )
        return f"pruned by {self.method}\nschedule: {stages}\ntokens: {counts}"

    def reads_scan(self, block: int) -> bool:
        """Only a stage that scores its tokens needs what the block's scans computed."""
        amount = self.amounts.get(block)
        return amount is not None and amount.removes and self.method.part.reads_scan

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        amount = self.amounts.get(block)
        if amount is None:
            return tokens
        layout = tokens.layout
        extras = len(layout.extras)
        if isinstance(amount, Share) and self.counts_by_image:
            return self._reduce_by_image(tokens, block, amount.share)
        return self._reduce(tokens, block, amount.left(layout.image_count, layout.full_length - extras, extras > 0))

    def _reduce(self, tokens: Tokens, block: int, count: int) -> Tokens:
        if count >= tokens.layout.image_count:
            return tokens
        stage = self._stage(block, count)
        if self.scorer is None:
            return self.method.part(tokens, stage)
        score = self.scorer(tokens, block)  # once, because the tokens that stay carry its gradient
        reduced = self.method.part(tokens, replace(stage, score=lambda _: score))
        return self.scorer.carry_gradient(reduced, score, kept_places(tokens, reduced))

    def _reduce_by_image(self, tokens: Tokens, block: int, share: float) -> Tokens | Groups:
        """As many tokens stay in each image as its own weights say, rounded up to COUNT_STEP."""
        present = tokens.layout.image_count
        if share == 1 or present < 2:
            return tokens
        weight = self.method.part.weights(tokens, self._stage(block, present))
        counts = self.method.image_counts(weight, share) + (present - weight.shape[1])
        counts = ((counts + COUNT_STEP - 1) // COUNT_STEP * COUNT_STEP).clamp(max=present)
        distinct = counts.unique().tolist() or [present]  # of no images
        if len(distinct) == 1:
            return self._reduce(tokens, block, distinct[0])
        rows = tuple((counts == count).nonzero()[:, 0] for count in distinct)
        parts = zip(rows, distinct, strict=True)
        return Groups(rows, tuple(self._reduce(tokens.images(mine), block, count) for mine, count in parts))

    def _stage(self, block: int, count: int) -> Stage:
        score = None if self.scorer is None else partial(self.scorer, block=block)
        return Stage(count, self.method.alignment, self.seed + block, score)
