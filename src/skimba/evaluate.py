"""What a model makes of images it was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skimba.data import LabelledImages


def predict(
    model: nn.Module,
    images: LabelledImages,
    batch_size: int = 100,
    on_images: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits ``(b num_classes)`` float32 on the CPU, for all images, with the model in evaluation mode.

    Args:
        on_images: called after each batch with the number of images done, for a progress bar.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            parts.append(model(batch.normalised().to(device)).float().cpu())
            if on_images is not None:
                on_images(len(batch))
    model.train(was_training)
    return torch.cat(parts)


def accuracy(logits: Tensor, labels: Tensor, top: int = 1) -> float:
    """Share of the images whose class is among the ``top`` largest logits ``(b num_classes)``."""
    best = logits.topk(min(top, logits.shape[1])).indices
    return (best == labels[:, None]).any(1).float().mean().item()
