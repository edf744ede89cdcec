"""From a model to a program of torch.export."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from skimba.models import TokenModel
from skimba.models.evaluation import evaluating
from skimba.pruning import Pruner
from skimba.runtime.messages import plain

EXAMPLE = 2  # images; 0 and 1 would be taken for constants


def trace(model: TokenModel, batch: int | None) -> ExportedProgram:
    """The model in evaluation mode, for pictures of its own size.

    Args:
        batch: number of images of every call; None: any.

    Raises:
        ValueError: images keep different numbers of tokens, or something in it cannot be traced.
    """
    reducer = model.reducer
    if isinstance(reducer, Pruner) and reducer.counts_by_image:
        raise ValueError(
            "with counts every image keeps its own number of tokens, which no exported program can: prune with counts=None"
        )
    images = example(model, batch)
    shapes = None if batch is not None else ({0: Dim.DYNAMIC},)
    try:
        with evaluating(model), torch.no_grad():
            return torch.export.export(model, (images,), dynamic_shapes=shapes)
    except (
        Exception
    ) as error:  # torch's own kinds, and whatever a user-defined function makes of a tensor without values
        own = reducer.method.part.functions if isinstance(reducer, Pruner) else []
        whose = (
            f"; it has user-defined functions ({', '.join(own)}), which may not read values of tensors" if own else ""
        )
        raise ValueError(f"this model cannot be traced{whose}: {type(error).__name__}: {plain(error)}") from error


def example(model: TokenModel, batch: int | None) -> Tensor:
    """Zeros that the model takes."""
    first = next(model.parameters())
    return torch.zeros(batch or EXAMPLE, *model.input_shape(), dtype=first.dtype, device=first.device)
