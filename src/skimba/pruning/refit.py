"""Pruned features brought back towards the dense model's, in closed form, on pictures without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from skimba.dense.model import DenseModel, tokens_of
from skimba.models import TokenModel
from skimba.models.evaluation import evaluating
from skimba.pruning.verbs import unprune, with_corrections

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the regression, in variances of a feature
HELD_BACK = 5  # every fifth picture chooses the penalty
LEAST_PICTURES = 50
Model = TypeVar("Model", bound=TokenModel | DenseModel)


def refit(pruned: Model, images: Iterable[Tensor]) -> Model:
    """The pruned model with features like the dense model's: what its classifier reads, or each map that dense heads read.

    What pruning does to these features is in part the same linear function of them in every picture. A ridge regression from the
    pruned features to what they lack finds that part; its penalty is the one that does best on every fifth picture, held back
    meanwhile. No labels and no gradients are needed. When the model runs, it costs a product of the features' width with itself,
    once for an image or for each cell of a map. Ours.

    Args:
        pruned: a pruned model; the model given stays as it is, and all weights are shared.
        images: batches ``(b c height width)`` (of clips ``(b c t height width)``), normalised, of a size that the model takes,
            for instance ``pictures.split(64)``: 50 in all at least. A few thousand are worth while for a classifier, which sees
            one row of features in each; a few hundred for maps.

    Returns:
        A model whose ``corrections`` are saved and exported with it. :func:`prune` and :func:`unprune` leave them out.

    Raises:
        TypeError: not a skimba model.
        ValueError: it is not pruned, or there are too few images.
    """
    if not isinstance(pruned, TokenModel | DenseModel):
        raise TypeError(f"refit needs a skimba model, got {type(pruned).__name__}")
    if tokens_of(pruned).reducer is None:
        raise ValueError("refit needs a pruned model, got a dense one")
    plain = with_corrections(pruned, wanted=False)
    found = _collect(tokens_of(plain), tokens_of(unprune(plain)), images)
    model = with_corrections(pruned, wanted=True)
    with torch.no_grad():
        for correction, (fits, chooses) in zip(tokens_of(model).corrections, found, strict=True):
            weight, bias = _fit(fits, chooses)
            correction.weight.copy_(weight.T)
            correction.bias.copy_(bias)
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
        ridge = penalty * centred.diagonal().mean().clamp(min=torch.finfo(centred.dtype).tiny)
        together = self.cross[:-1] - rows * torch.outer(mean, level)
        weight = torch.linalg.solve(centred + ridge * torch.eye(len(centred)).to(centred), together)
        return weight, level - mean @ weight

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """The sum of the squares of what is still lacking."""
        both = torch.cat((weight, bias[None]))
        return self.square + float((both * (self.gram @ both - 2 * self.cross)).sum())


def _fit(fits: _Sums, chooses: _Sums) -> tuple[Tensor, Tensor]:
    """Weight and bias on all rows, the penalty chosen on some of them by what the others give."""
    best = min(PENALTIES, key=lambda penalty: chooses.error(*fits.solve(penalty)))
    return fits.plus(chooses).solve(best)


def _collect(pruned: TokenModel, dense: TokenModel, images: Iterable[Tensor]) -> list[tuple[_Sums, _Sums]]:
    """For each of the features, sums over the pictures that are fitted to, and over those that choose."""
    count, device = 0, next(dense.parameters()).device
    found = [(_Sums.none(width, device), _Sums.none(width, device)) for width in dense.feature_widths]
    with evaluating(pruned), evaluating(dense), torch.no_grad():
        for batch in images:
            batch = batch.to(device)
            chooses = torch.arange(count, count + len(batch), device=device) % HELD_BACK == 0
            count += len(batch)
            pairs = zip(pruned.read_features(batch), dense.read_features(batch), strict=True)
            for (own, wanted), sums in zip(pairs, found, strict=True):
                for one, which in zip(sums, (~chooses, chooses), strict=True):
                    one.add(own[which].flatten(0, -2), wanted[which].flatten(0, -2))
    if count < LEAST_PICTURES:
        raise ValueError(f"refit needs {LEAST_PICTURES} images or more, got {count}")
    return found
