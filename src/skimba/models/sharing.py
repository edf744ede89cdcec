"""Two models on the same weights."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self  # torch's own dependency


class SharedWeights(nn.Module):
    """A model that can have a twin on the same weights; a change of dtype or device leaves the twin as it is.

    Attributes:
        shares_weights: whether another model may hold the same parameters.
    """

    shares_weights: bool = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.shares_weights and _changes(self, fn):
            _own_parameters(self)
            self.shares_weights = False
        return super()._apply(fn, recurse)


Model = TypeVar("Model", bound=SharedWeights)
Module = TypeVar("Module", bound=nn.Module)


def shared_twin(model: Model) -> Model:
    """A copy of a model with modules of its own on the same tensors.

    Every module is copied, with the hooks it has, so later hooks, ``train()``, ``eval()`` and replaced parts of one model do not
    reach the other. Parameters and buffers are the same tensors: gradients, ``requires_grad``, an optimiser's step,
    ``load_state_dict`` and a BatchNorm's running mean show in both. A change of dtype or device of one model gives it parameters
    of its own and leaves the other as it is; an optimiser made before that still holds the common ones. Convert the model, not
    its parts. For a frozen teacher take ``copy.deepcopy``.
    """
    model.shares_weights = True
    return _module_twin(model, {})


def _module_twin(module: Module, seen: dict[int, Any]) -> Module:
    """A copy of a tree of modules on the same tensors. ``seen``: twins by the id of their original, for what is used twice."""
    if id(module) in seen:
        return seen[id(module)]
    twin = copy.copy(module)
    seen[id(module)] = twin
    for name, value in vars(module).items():  # the tables of parameters, hooks and settings
        if isinstance(value, dict | list | set):
            object.__setattr__(twin, name, copy.copy(value))
        elif isinstance(value, nn.Module):  # a module that belongs to another part of the model
            object.__setattr__(twin, name, _module_twin(value, seen))
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _module_twin(child, seen)
    return twin


def _changes(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> bool:
    """Whether a conversion changes the dtype or the device of any tensor of the model."""
    kinds = {(tensor.dtype, tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    probes = [torch.empty(0, dtype=dtype, device=device) for dtype, device in kinds]
    return any(convert(probe) is not probe for probe in probes)


def _own_parameters(model: nn.Module) -> None:
    """Replace the model's parameters by others on the same memory: torch converts a parameter in place."""
    own: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in own:
                mine = nn.Parameter(parameter.detach(), parameter.requires_grad)
                mine.grad = None if parameter.grad is None else parameter.grad.detach()
                own[id(parameter)] = mine
            module._parameters[name] = own[id(parameter)]
