"""Weights of dense models: strictly by name, and a checkpoint of another task is named as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skimba.dense.model import DenseModel
from skimba.models.checkpoint import mismatches, read_state_dict
from skimba.models.origin import kind_of


def load_dense(model: DenseModel, path: str | Path, fresh: Sequence[str] = ()) -> list[str]:
    """Load weights into a detector or segmenter, strictly.

    Args:
        path: see :func:`skimba.models.read_state_dict`.
        fresh: beginnings of the names of parameters that may have another shape and then stay as they are.

    Returns:
        Names of those that stayed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no checkpoint, a checkpoint of another task, or names or shapes that do not match; the model
            is then unchanged.
    """
    found, own = read_state_dict(path), model.state_dict()
    kind, expected = kind_of(found), kind_of(own)
    if kind != expected:
        raise ValueError(f"{path} holds the weights of {kind}, and this is {expected}")
    kept = [
        name
        for name in own.keys() & found.keys()
        if found[name].shape != own[name].shape and name.startswith(tuple(fresh))
    ]
    found |= {name: own[name] for name in kept}
    if problems := mismatches(found, own):
        raise ValueError(f"{path} does not fit this {type(model).__name__}: " + "; ".join(problems))
    model.load_state_dict(found)
    return sorted(kept)
