"""Pruned features brought back towards the dense model's, in closed form, on pictures without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.models import TokenModel
from skimba.models.evaluation import evaluating
from skimba.pruning.verbs import unprune, with_correction

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the regression, in variances of a feature
HELD_BACK = 5  # every fifth picture chooses the penalty
LEAST_PICTURES = 50
LEAST_VARIANCE = 1e-12  # of a feature beside its square, far below what rounding leaves


def refit(pruned: TokenModel, images: Iterable[Tensor]) -> TokenModel:
    """The pruned model with features like the dense model's: with a correction of what its classifier reads.

    What pruning does to these features is in part the same linear function of them in every picture. A ridge regression from the
    pruned features to what they lack finds that part; its penalty is the one that does best on every fifth picture, held back
    meanwhile. No labels and no gradients are needed. When the model runs, it costs one product of the features' width with itself
    for an image. Ours. (On the maps of detectors and segmenters the same won nothing once its cost was counted.)

    Args:
        pruned: a pruned model; the model given stays as it is, and all weights are shared.
        images: batches ``(b c height width)`` (of clips ``(b c t height width)``), normalised, of a size that the model takes,
            for instance ``pictures.split(64)``: 50 in all at least; a few thousand are worth while.

    Returns:
        A model whose ``correction`` is saved and exported with it. :func:`prune` and :func:`unprune` leave it out.

    Raises:
        TypeError: not a skimba model for classification.
        ValueError: it is not pruned, there are too few images, or their features are not finite.
    """
    if not isinstance(pruned, TokenModel):
        raise TypeError(f"refit needs a skimba model for classification, got {type(pruned).__name__}")
    if pruned.reducer is None:
        raise ValueError("refit needs a pruned model, got a dense one")
    plain = with_correction(pruned, wanted=False)
    fits, chooses = _collect(plain, unprune(plain), images)
    both = fits.plus(chooses)
    if not torch.isfinite(both.cross).all():
        raise ValueError("refit needs features that are finite; those of some images are NaN or infinite")
    best = min(PENALTIES, key=lambda penalty: chooses.error(*fits.solve(penalty)))
    weight, bias = both.solve(best)
    model = with_correction(pruned, wanted=True)
    assert model.correction is not None
    with torch.no_grad():
        model.correction.weight.copy_(weight.T)
        model.correction.bias.copy_(bias)
    return model


@dataclass
class _Sums:
    """What a regression needs of its rows, float64.

    Attributes:
        gram: ``(d + 1 d + 1)`` of the features with a 1 beside them.
        cross: ``(d + 1 d)`` of these with what the features lack.
        square: the sum of the squares of what they lack.
    """

    gram: Tensor
    cross: Tensor
    square: float = 0.0

    @classmethod
    def none(cls, width: int, device: torch.device) -> _Sums:
        """Of no rows yet, of features of that width."""
        gram = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=device)
        return cls(gram, gram[:, :-1].clone())

    def add(self, features: Tensor, wanted: Tensor) -> None:
        """Rows ``(n d)``."""
        rows = torch.cat((features.double(), features.new_ones(len(features), 1, dtype=torch.float64)), 1)
        lacking = wanted.double() - features.double()
        self.gram, self.cross = self.gram + rows.T @ rows, self.cross + rows.T @ lacking
        self.square += float(lacking.square().sum())

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(self.gram + other.gram, self.cross + other.cross, self.square + other.square)

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Weight ``(d d)`` and bias ``(d)``: ``argmin |x weight + bias - lacking|² + penalty · variance · rows · |weight|²``."""
        rows = self.gram[-1, -1]
        mean, level = self.gram[:-1, -1] / rows, self.cross[-1] / rows
        centred = self.gram[:-1, :-1] - rows * torch.outer(mean, mean)
        least = LEAST_VARIANCE * (1 + self.gram.diagonal()[:-1].mean() / rows)  # of features that do not differ at all
        ridge = penalty * torch.maximum(centred.diagonal().mean(), least * rows)
        together = self.cross[:-1] - rows * torch.outer(mean, level)
        weight = torch.linalg.solve(centred + ridge * torch.eye(len(centred)).to(centred), together)
        return weight, level - mean @ weight

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """The sum of the squares of what is still lacking."""
        both = torch.cat((weight, bias[None]))
        return self.square + float((both * (self.gram @ both - 2 * self.cross)).sum())


def _collect(pruned: TokenModel, dense: TokenModel, images: Iterable[Tensor]) -> tuple[_Sums, _Sums]:
    """Sums over the pictures that are fitted to, and over those that choose."""
    count, device = 0, next(dense.parameters()).device
    fits, chooses = (_Sums.none(dense.head_hidden_size, device) for _ in range(2))
    with evaluating(pruned), evaluating(dense), torch.no_grad():
        for batch in images:
            batch = batch.to(device)
            held_back = torch.arange(count, count + len(batch), device=device) % HELD_BACK == 0
            count += len(batch)
            own, wanted = (
                model.forward_head(model.forward_features(batch), pre_logits=True) for model in (pruned, dense)
            )
            for sums, which in ((fits, ~held_back), (chooses, held_back)):
                sums.add(own[which].flatten(0, -2), wanted[which].flatten(0, -2))
    if count < LEAST_PICTURES:
        raise ValueError(f"refit needs {LEAST_PICTURES} images or more, got {count}")
    return fits, chooses
