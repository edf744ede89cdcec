"""How much each token matters. A score is one entry of :data:`SCORE`; adding one is a function and a line.

Every function takes ``(tokens, count, seed)`` — the tokens after a block with ``tokens.scan``, what its scans computed; how many
image tokens will stay; a seed for this stage — and returns a score ``(b l)``, the larger the more important, from each image
alone. The score of an extra token is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skimba.pruning.learned import Learned
from skimba.tokens import ScanRecord, Tokens

Score = Callable[[Tokens, int, int], Tensor]


def _scan(tokens: Tokens) -> ScanRecord:
    if tokens.scan is None:
        raise ValueError("this score reads what the block's scans computed, got tokens without a scan record")
    return tokens.scan


def clip(tokens: Tokens, count: int, seed: int) -> Tensor:
    """``S_t = Σ_directions (1/e) Σ_e max(0, y_t)`` of the gated scan output. Source: "Exploring Token Pruning in Vision State
    Space Models" (NeurIPS 2024), its score."""
    return sum_directions([y.clamp(min=0).mean(-1) for y in _scan(tokens).y])


def no_clip(tokens: Tokens, count: int, seed: int) -> Tensor:
    """``Σ_directions (1/e) Σ_e y_t``. Source: the same paper's ablation."""
    return sum_directions([y.mean(-1) for y in _scan(tokens).y])


def l1(tokens: Tokens, count: int, seed: int) -> Tensor:
    """``Σ_directions (1/e) Σ_e |y_t|``. Source: the same paper's ablation."""
    return sum_directions([y.abs().mean(-1) for y in _scan(tokens).y])


def l2(tokens: Tokens, count: int, seed: int) -> Tensor:
    """``Σ_directions sqrt((1/e) Σ_e y_t²)``. Source: the same paper's ablation."""
    return sum_directions([y.square().mean(-1).sqrt() for y in _scan(tokens).y])


def delta(tokens: Tokens, count: int, seed: int) -> Tensor:
    """``Σ_directions (1/e) Σ_e Δ_t``, the time step after softplus. Source: MTR (arXiv 2507.14042)."""
    return sum_directions([step.mean(-1) for step in _scan(tokens).delta])


def random(tokens: Tokens, count: int, seed: int) -> Tensor:
    """Uniform noise, the same for every image of a batch (so that an image does not depend on its batch)."""
    batch, length = tokens.x.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(length, generator=generator).to(tokens.x.device).expand(batch, length)


def even(tokens: Tokens, count: int, seed: int) -> Tensor:
    """1 for ``count`` image tokens spread evenly over the present sequence, 0 for the others."""
    present = tokens.layout.image_count
    rank = torch.arange(present, device=tokens.x.device).expand(tokens.x.shape[0], -1)
    score = ((rank + 1) * count // present - rank * count // present).float()
    return torch.zeros(tokens.x.shape[:2], device=tokens.x.device).scatter(1, tokens.image_places, score)


def sum_directions(scores: list[Tensor]) -> Tensor:
    """Sum of the directions' scores, in float32."""
    return torch.stack([score.float() for score in scores]).sum(0)


SCORE: dict[str, Score | Learned] = {
    "clip": clip,
    "no_clip": no_clip,
    "l1": l1,
    "l2": l2,
    "delta": delta,
    "random": random,
    "even": even,
    "learned": Learned(),
}
READS_NO_SCAN: frozenset[Score | Learned] = frozenset({random, even, Learned()})  # so that nothing is recorded for them
