"""What pruning changes, block by block, against the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.insight.watching import BlockRun, plain_mode, watch
from skimba.models import TokenModel
from skimba.tokens import Tokens, take


@dataclass(frozen=True, eq=False)
class Changes:
    """Relative changes against the dense model, ``|pruned - dense| / |dense|`` (Euclidean, over images, tokens, channels).

    Attributes:
        titles: of the pruned models, in the order of axis ``m``.
        scan: ``(m n)`` of what the scans of block ``n`` give, with their gates, added; at the tokens that the block has.
        stream: ``(m n)`` of the stream after block ``n``, at the same tokens.
        logits: ``(m n)`` of what the head would say after block ``n`` and the removal that follows it; the last are the model's
            logits.
        removes: ``(m n)`` bool: whether tokens are removed after block ``n``.
    """

    titles: tuple[str, ...]
    scan: Tensor
    stream: Tensor
    logits: Tensor
    removes: Tensor


def pruning_changes(dense: TokenModel, pruned: Mapping[str, TokenModel], images: Tensor) -> Changes:
    """How far pruned models are from the dense one after each block.

    A token that is left is compared with the dense model's at its own position, also where it stands for others too.

    Args:
        dense: the model unpruned.
        pruned: models made of it, by title.
        images: ``(b c height width)``.

    Raises:
        ValueError: no pruned model; images that keep different numbers of tokens.
    """
    if not pruned:
        raise ValueError("got no pruned model to compare with the dense one")
    with plain_mode():
        wanted = [_values(dense, run) for run in watch(dense, images)]
        rows = [
            [_change(_values(model, run), run, there) for run, there in zip(watch(model, images), wanted, strict=True)]
            for model in pruned.values()
        ]
    found = torch.tensor(rows)  # (m n 4)
    return Changes(tuple(pruned), found[..., 0], found[..., 1], found[..., 2], found[..., 3].bool())


Values = tuple[Tensor, Tensor, Tensor]  # of the scans and the stream (b l d), and logits


def _values(model: TokenModel, run: BlockRun) -> Values:
    tokens: Tokens = run.tokens
    assert tokens.scan is not None
    return torch.stack(tokens.scan.y).sum(0), tokens.stream, model.forward_head(run.left)


def _change(values: Values, run: BlockRun, dense: Values) -> tuple[float, float, float, float]:
    position = run.tokens.position
    pairs = [(values[0], take(dense[0], position)), (values[1], take(dense[1], position)), (values[2], dense[2])]
    scan, stream, logits = (float((found - there).norm() / there.norm()) for found, there in pairs)
    return scan, stream, logits, float(run.left is not run.tokens)
