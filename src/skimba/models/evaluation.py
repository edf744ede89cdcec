"""Predictions on test images, and their accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode meanwhile."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits ``(b num_classes)`` float32 and labels ``(b)`` of all images, on the CPU; the model is in evaluation mode meanwhile.

    Args:
        batches: normalised images ``(b c height width)`` with their labels ``(b)``.
    """
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        found = [(model(images.to(device)).float().cpu(), labels) for images, labels in batches]
    return torch.cat([logits for logits, _ in found]), torch.cat([labels for _, labels in found])


def accuracy(logits: Tensor, labels: Tensor, top: int = 1) -> float:
    """Share of the images whose class is among the ``top`` largest logits ``(b num_classes)``, in 0 … 1."""
    best = logits.topk(min(top, logits.shape[1])).indices
    return (best == labels[:, None]).any(1).double().mean().item()
