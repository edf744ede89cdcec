"""Through all blocks: what the end depends on, and what speaks for a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.insight.attention import Combine, block_attention
from skimba.insight.linear import PARTS, Part, linear_scan
from skimba.insight.places import share_columns, token_of_position
from skimba.insight.watching import BlockRun, plain_mode, watch
from skimba.models import TokenModel
from skimba.tokens import Layout


@dataclass(frozen=True, eq=False)
class Relevance:
    """What speaks for a class.

    Attributes:
        map: ``(b h w)``, of a clip ``(b t h w)``, >= 0, of the image patches; comparable within an image.
        classes: ``(b)`` int64.
    """

    map: Tensor
    classes: Tensor


def rollout(
    model: TokenModel, images: Tensor, *, include: Sequence[Part] = (), combine: str | Combine = "magnitude"
) -> Tensor:
    """How much each position after the last block depends on each position before the first: the product over all blocks of
    ``(I + α) / 2``, the rows of hidden attention α, summed over the scans, divided by their sums.

    Args: as :func:`~skimba.insight.hidden_attention` takes them.

    Returns:
        ``(b i j)``, each row a distribution over the full sequence.

    Raises:
        ValueError: an unknown part or key; images that keep different numbers of tokens.

    Source: Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (arXiv 2005.00928); over hidden attention as Ali et al.
    (arXiv 2403.01590).
    """
    with plain_mode():
        total: Tensor | None = None
        for run in watch(model, images):
            weight = block_attention(run, include=include, combine=combine).sum(1)  # (b L L)
            rows = weight.sum(2, keepdim=True)
            itself = torch.eye(weight.shape[1], device=weight.device)
            mixed = torch.where(rows > 0, (itself + weight / rows.clamp(min=1e-30)) / 2, itself)
            total = mixed if total is None else mixed @ total
    assert total is not None
    return total


def relevance(model: TokenModel, images: Tensor, classes: Sequence[int] | Tensor | None = None) -> Relevance:
    """What speaks for a class, by hidden attention weighted with gradients.

    What position ``j`` brings to the class's logit through position ``i`` of a scan is, to first order, ``Σ_e g_i α_ij x_j``
    =: ``β_ij``, with ``g`` the gradient at the scan's output and ``x`` the input of the convolution; D, gate and convolution are
    part of α. Beginning with the tokens that the head reads, the extra ones or all, relevance is followed back through all
    blocks: ``r_j ← r_j + max(0, Σ_i r_i β_ij)``, summed over the scans.

    Args:
        model: dense or pruned.
        images: ``(b c height width)``.
        classes: ``(b)``; the predicted ones if None.

    Raises:
        ValueError: a class that the model does not have, or not one for each image; images that keep different numbers of
            tokens.

    Source: after the class-specific attribution of Ali et al., "The Hidden Attention of Mamba Models" (arXiv 2403.01590), and
    Chefer et al. (arXiv 2103.15679). Here the gradient is that to the weights of α, the convolution is included, and the
    positive part is taken of what a position brings in all, so that no matrix is needed: one backward call for each scan.
    """
    with plain_mode(), torch.enable_grad():
        runs = list(watch(model, images.detach().clone().requires_grad_()))
        logits = model.forward_head(runs[-1].left)
        chosen = _classes(logits, classes)
        outputs = [call.output for run in runs for call in run.scans]
        found = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), outputs)
    with plain_mode():
        layout = runs[-1].left.layout
        start = reading = _read_by_head(layout, len(images), logits.device)
        towards = list(found)
        for run in reversed(runs):
            grads = [towards.pop() for _ in run.scans][::-1]
            reading = _one_block_back(run, reading, grads)
        image = layout.image_part(reading - start)
    return Relevance(image, chosen)


def _classes(logits: Tensor, given: Sequence[int] | Tensor | None) -> Tensor:
    if given is None:
        return logits.argmax(1)
    chosen = torch.as_tensor(given, dtype=torch.int64, device=logits.device)
    if chosen.shape != logits.shape[:1]:
        raise ValueError(f"classes must be one for each of {len(logits)} images, got shape {tuple(chosen.shape)}")
    if wrong := [c for c in chosen.tolist() if not 0 <= c < logits.shape[1]]:
        raise ValueError(f"classes must be 0 … {logits.shape[1] - 1}, got {wrong[0]}")
    return chosen


def _read_by_head(layout: Layout, batch: int, device: torch.device) -> Tensor:
    """``(b L)`` 1 for each token that the head reads: the extra ones, or all, shared out among their positions."""
    if layout.extras:
        return torch.zeros(batch, layout.full_length, device=device).index_fill(1, torch.tensor(layout.extras), 1)
    ones = torch.ones(layout.length, device=device)
    return torch.stack([share_columns(ones, token_of_position(layout, image)) for image in range(batch)])


def _one_block_back(run: BlockRun, reading: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """``reading (b L)`` of what comes out of a block -> of what goes into it, directly and through the scans."""
    found = []
    for image, later in enumerate(reading):
        token = token_of_position(run.tokens.layout, image)
        there = token >= 0
        own = later.new_zeros(run.tokens.x.shape[1]).index_add(0, token[there], later[there])  # (l)
        brought = [brought_by(run, number, image, grad[image], own) for number, grad in enumerate(grads)]
        found.append(share_columns(own + torch.stack(brought).sum(0).clamp(min=0), token))
    return torch.stack(found)


def brought_by(run: BlockRun, number: int, image: int, grad: Tensor, reading: Tensor) -> Tensor:
    """``(l)``: what each token brings to the logit through one scan.

    Args:
        grad: ``(l e)`` at the scan's output.
        reading: ``(l)`` weight of each token of the output.
    """
    with_gate = run.scans[number].scan.z is not None  # else the output comes before the gate
    scan = linear_scan(run, number, image, PARTS if with_gate else ("skip", "convolution"))
    towards = reading[:, None] * grad[: scan.length].to(scan.read.dtype)
    return (scan.backwards(towards[None]) * scan.read[:, : scan.length])[0].sum(1)
