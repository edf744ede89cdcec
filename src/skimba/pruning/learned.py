"""A score that is learned: a small network for each stage, trained with the model.

Source: DyVM (arXiv 2504.04787), whose predictor is that of DynamicViT (arXiv 2106.02034, section 3.1). What differs: tokens are
removed in training too, and the tokens that stay carry the gradient of their probability of staying (straight through), where
the originals mask all tokens by Gumbel noise; the schedule fixes how many stay, so no loss asks for a share; directions of the
scan are not skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skimba.tokens import Tokens, take


@dataclass(frozen=True)
class Learned:
    """The score of a small network for each stage, trained with the model; ``"learned"`` by name."""

    def scorer(self, width: int, blocks: Iterable[int], seed: int) -> LearnedScore:
        """The networks of one pruned model."""
        return LearnedScore(width, blocks, seed)


class Predictor(nn.Module):
    """``(b l d)`` -> the log odds ``(b l)`` that a token stays, from the token and from the mean over the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.outer = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )

    def forward(self, stream: Tensor, is_image: Tensor) -> Tensor:
        """``is_image (b l)``: 1 for image tokens, over which the mean goes."""
        local, whole = self.inner(stream).chunk(2, dim=-1)
        weight = is_image[..., None].to(whole.dtype)
        mean = (whole * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        stays, goes = self.outer(torch.cat([local, mean.expand_as(local)], -1)).unbind(-1)
        return stays - goes


class LearnedScore(nn.Module):
    """A predictor for each stage. It becomes the pruned model's ``scorer``: its weights are trained and saved with the model's.

    Args:
        width: of the model.
        blocks: after which tokens are removed.
        seed: of the initial weights, which are random: train before use.
    """

    def __init__(self, width: int, blocks: Iterable[int], seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.predictors = nn.ModuleDict({str(block): Predictor(width) for block in sorted(blocks)})

    def forward(self, tokens: Tokens, block: int) -> Tensor:
        """Log odds ``(b l)`` float32 that each token stays after that block."""
        predictor = self.predictors[str(block)]
        is_image = (~tokens.is_extra).float()
        dtype = next(predictor.parameters()).dtype
        return predictor(tokens.stream.to(dtype), is_image).float()

    def carry_gradient(self, reduced: Tokens, score: Tensor, kept: Tensor) -> Tokens:
        """In training: the same tokens, their values multiplied by 1, whose gradient is that of the log of their probability.

        Args:
            reduced: ``(b k)`` tokens that are left.
            score: ``(b l)`` as they were scored.
            kept: ``(b k)`` their places then.
        """
        if not self.training:
            return reduced
        probability = take(score, kept).sigmoid()[..., None]
        one = probability / probability.detach()
        residual = None if reduced.residual is None else reduced.residual * one
        return replace(reduced, x=(reduced.x * one).to(reduced.x.dtype), residual=residual)
