"""Named methods and the schedules that go with the official models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Method:
    """How tokens are chosen, removed and made up for; arguments of :func:`skimba.prune` of the same names."""

    reduction: str | Callable[..., Any]
    importance: str | Callable[..., Any]
    align: str | Callable[..., Any]
    owner: str | Callable[..., Any] = "similar"
    align_conv: bool | str = True
    gap_delta: str = "previous"


PRESETS = {
    # Zhan et al., "Exploring Token Pruning in Vision State Space Models", NeurIPS 2024.
    "top": Method(reduction="drop", importance="clip", align="decay"),
    # Ours: every position keeps an owner; step and convolution follow.
    "hold": Method(reduction="bipartite", importance="clip", align="hold"),
}


def paper_schedule(model: nn.Module) -> dict[int, float]:
    """The paper's schedule for a model: ``{blocks: share kept}``.

    Vim, 24 blocks: 0.8 after blocks 5, 10, 15 (Vim-S counts 3.57 G by the published convention); the narrow Vim-T 0.8 after
    10 and 20 (counts 1.24 G; the paper's table says 1.29). The paper gives none for the others: Vim-B takes the schedule of
    Vim-S (13.2 G, where R-MeeTo's published comparison stands), PlainMamba 0.725 after blocks 5, 10, 15, which comes to 8.43 G
    for L3 (the paper: 8.44). Another depth takes stages at the quarters of its depth, 0.8 each.
    """
    depth = len(model.layers)  # type: ignore[arg-type]
    if model.class_token_count == 0 and depth >= 24:
        return dict.fromkeys((5, 10, 15), 0.725)
    if depth == 24:
        return dict.fromkeys((10, 20) if model.num_features == 192 else (5, 10, 15), 0.8)
    quarter = max(depth // 4, 1)
    return dict.fromkeys([b for b in (quarter, 2 * quarter, 3 * quarter) if b < depth] or [depth], 0.8)
