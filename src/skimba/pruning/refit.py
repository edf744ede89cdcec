"""A classifier fitted to the features of a pruned model, in closed form, on pictures without labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from skimba.models import TokenModel, with_reducer
from skimba.models.evaluation import evaluating

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the regression, in variances of a feature
HELD_BACK = 5  # every fifth picture chooses the penalty
LEAST_PICTURES = 50


def refit_classifier(pruned: TokenModel, images: Iterable[Tensor]) -> TokenModel:
    """The pruned model with a classifier (its last linear layer) of its own, whose logits come near the dense model's.

    What pruning changes in the features that the classifier reads is in part the same function of them on every picture. A
    ridge regression from these features to what the logits lack finds that part, and is added to the layer; its penalty is
    the one that does best on every fifth picture, held back meanwhile. No labels, no gradients, no cost when the model runs.
    All other weights stay shared with the model given, which stays as it is; :func:`unprune` of the result keeps the new layer.

    Args:
        pruned: a pruned classification model, with the classifier that it had when it was dense.
        images: batches ``(b c height width)`` (of clips ``(b c t height width)``) as the model takes them, for instance
            ``pictures.split(64)``: 50 in all at least, a few thousand for features of a few hundred channels.

    Raises:
        TypeError: not a skimba model for classification.
        ValueError: it is not pruned, has no classes, or there are too few images.
    """
    if not isinstance(pruned, TokenModel):
        raise TypeError(f"refit_classifier needs a skimba model for classification, got {type(pruned).__name__}")
    if pruned.reducer is None:
        raise ValueError("refit_classifier needs a pruned model, got a dense one")
    layer = pruned.get_classifier()
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"refit_classifier needs a linear classifier, got {type(layer).__name__}")
    features, lacking = _collect(pruned, layer, images)
    weight, bias = _ridge(features, lacking)
    own = nn.Linear(layer.in_features, layer.out_features, device=layer.weight.device, dtype=layer.weight.dtype)
    with torch.no_grad():
        own.weight.copy_(layer.weight.double() + weight.T)
        own.bias.copy_(bias if layer.bias is None else layer.bias.double() + bias)
    fitted = with_reducer(pruned, pruned.reducer)
    fitted.set_classifier(own.requires_grad_(layer.weight.requires_grad))
    return fitted


def _collect(pruned: TokenModel, layer: nn.Linear, images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Features ``(n d)`` of the pruned model and what its logits lack ``(n num_classes)`` of the dense model's, float64."""
    dense = with_reducer(pruned, None)
    found: list[tuple[Tensor, Tensor]] = []
    with evaluating(pruned), evaluating(dense), torch.no_grad():
        for batch in images:
            features = pruned.forward_head(pruned.forward_features(batch), pre_logits=True)
            found.append((features.double(), (dense(batch) - layer(features)).double()))
    count = sum(len(features) for features, _ in found)
    if count < LEAST_PICTURES:
        raise ValueError(f"refit_classifier needs {LEAST_PICTURES} images or more, got {count}")
    return torch.cat([features for features, _ in found]), torch.cat([lacking for _, lacking in found])


def _ridge(features: Tensor, lacking: Tensor) -> tuple[Tensor, Tensor]:
    """Weight ``(d num_classes)`` and bias of the regression, its penalty chosen on the pictures held back."""
    chooses = torch.arange(len(features), device=features.device) % HELD_BACK == 0

    def error(penalty: float) -> float:
        weight, bias = _solve(features[~chooses], lacking[~chooses], penalty)
        return float((features[chooses] @ weight + bias - lacking[chooses]).square().mean())

    return _solve(features, lacking, min(PENALTIES, key=error))


def _solve(features: Tensor, lacking: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """``argmin |features @ weight + bias - lacking|^2 + penalty · n · variance · |weight|^2``."""
    mean, level = features.mean(0), lacking.mean(0)
    centred = features - mean
    gram = centred.T @ centred
    ridge = penalty * gram.diagonal().mean().clamp(min=torch.finfo(gram.dtype).tiny)
    weight = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device),
                                centred.T @ (lacking - level))  # fmt: skip
    return weight, level - mean @ weight
