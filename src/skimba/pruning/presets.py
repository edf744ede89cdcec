"""Named methods: the paper's, its rivals as published (their tokens on the condensed sequence), and ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """How tokens are chosen, removed and made up for; arguments of :func:`skimba.prune` of the same names.

    Attributes:
        stages: after which blocks, where a target and no ``keep`` is given (a key of :data:`skimba.pruning.STAGES` or
            block numbers); each keeps the same share of what is left.
        head_only: whether the last block computes only what the head reads of it.
    """

    reduction: str | Callable[..., Any] = "drop"
    importance: str | Callable[..., Any] = "clip"
    selection: str | Callable[..., Any] = "top"
    owner: str | Callable[..., Any] = "similar"
    likeness: str | Callable[..., Any] = "cosine"
    align: str | Callable[..., Any] = "none"
    align_conv: bool | str = True
    gap_delta: str = "previous"
    stages: str | tuple[int, ...] = "quarters"
    counts: str | Callable[..., Any] = "share"
    head_only: bool = False


PRESETS = {
    # Zhan et al., "Exploring Token Pruning in Vision State Space Models", NeurIPS 2024.
    "top": Method(align="decay"),
    # Ours: every position keeps an owner; step and convolution follow; the neighbours that cost least merge, early; what
    # nobody reads is not computed.
    "hold": Method("checkerboard", likeness="ward", align="hold", stages="early", head_only=True),
    # Rivals. EViT (arXiv 2202.07800) without its fused token, scored by clip since these models have no attention.
    "evit": Method("drop_by_score"),
    "evit_sorted": Method(),
    # ToMe (arXiv 2210.09461); its metric, the attention keys, becomes the stream.
    "tome": Method("bipartite_by_side", stages="every"),
    # R-MeeTo (arXiv 2412.12496), the class token at its true place.
    "r_meeto": Method("bipartite", likeness="hidden", stages="even"),
    # ToR (arXiv 2410.14725).
    "tor": Method("hybrid"),
    # MTR (arXiv 2507.14042): the time step as score, the rest merged into the most similar.
    "mtr": Method("merge", importance="delta"),
    # In the spirit of STORM (arXiv 2606.19932).
    "local": Method("bipartite", likeness="local"),
    # DyVM (arXiv 2504.04787): to be trained; without its choice of directions, the class token at its true place.
    "dyvm": Method(importance="learned"),
    "random": Method(importance="random"),
    "uniform": Method(importance="even"),
}
PRESETS["auto"] = PRESETS["hold"]  # the best of the study (docs/results.md)
