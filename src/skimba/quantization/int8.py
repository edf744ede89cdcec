"""``quantize``: a model and its twin with weights of 8 bits."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from skimba.dense.model import DenseModel
from skimba.layers.int8 import Int8Linear
from skimba.layers.mixer import Mixer
from skimba.models import TokenModel
from skimba.models.sharing import shared_twin

Model = TypeVar("Model", bound=TokenModel | DenseModel)


def quantize(model: Model) -> Model:
    """The same model with the wide products of its mixers in 8-bit integers, for fast inference on CPUs. The model given stays.

    ``in_proj``, ``x_proj`` and ``out_proj`` get a weight of 8 bits with a scale for each row; their inputs are rounded to 8 bits
    as they come, with a scale for each token, so nothing is calibrated and no picture's answer depends on its batch. All else,
    the scan, norms, convolutions, patches and heads, stays as it is and on the same tensors: quantise ``model.bfloat16()`` to
    have the rest in bfloat16. The result is pruned as the model is, can be pruned itself, and :func:`skimba.save_model` keeps it
    in 8 bits. It has no gradient: train first.

    Args:
        model: a skimba model, or a detector or segmenter, whose backbone is quantised; pruned or not. One that is quantised
            already comes back as it is.

    Raises:
        TypeError: not a skimba model.

    Example:
        ``skimba.quantize(skimba.prune(model))``
    """
    if not isinstance(model, TokenModel | DenseModel):
        raise TypeError(f"quantize needs a skimba model, got {type(model).__name__}")
    twin = shared_twin(model)
    made: dict[int, Int8Linear] = {}  # what stands in two places still does
    for mixer in [module for module in twin.modules() if isinstance(module, Mixer)]:
        for name, child in list(mixer._modules.items()):  # named_children leaves out a second place
            if (
                type(child) is nn.Linear
            ):  # not a TimeProjection: its few inputs are not worth it, and time steps are exponents
                if id(child) not in made:
                    made[id(child)] = Int8Linear(child)
                setattr(mixer, name, made[id(child)])
    return twin


def is_quantized(model: nn.Module) -> bool:
    """Whether a model has weights of 8 bits."""
    return any(isinstance(module, Int8Linear) for module in model.modules())
