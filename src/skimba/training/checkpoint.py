"""The state of a training, written so that a kill at any moment loses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from skimba.models.checkpoint import read_plain_data
from skimba.runtime.files import write_atomically
from skimba.runtime.processes import by_writer
from skimba.training.recipe import Recipe, as_plain

CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.safetensors"


def save_state(folder: Path, state: Mapping[str, Any], recipe: Recipe) -> None:
    """Write what a training needs to go on (process 0 writes).

    The step decides the sampler's position and all random numbers, so neither is in the file; bfloat16 needs no scaler.
    """
    content = {**state, "recipe": as_plain(recipe)}
    by_writer(lambda: write_atomically(folder / CHECKPOINT, lambda partial: torch.save(content, partial)))


def load_state(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """The state that :func:`save_state` wrote, in every process, or None.

    Raises:
        ValueError: the file is no such state, or belongs to a training by another recipe.
    """
    return by_writer(lambda: _read(folder, recipe))


def _read(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    state = read_plain_data(path) if path.exists() else None
    if state is not None:
        if not isinstance(state, dict) or not {"model", "optimizer", "ema", "step", "recipe"} <= state.keys():
            raise ValueError(f"{path} is not a checkpoint of this trainer; choose another folder")
        there, wanted = state["recipe"], as_plain(recipe)
        if there != wanted:
            changed = [f"{k}: {there.get(k)} there, {v} asked for" for k, v in wanted.items() if there.get(k) != v]
            raise ValueError(
                f"{folder} holds a training by another recipe ({'; '.join(changed)}); choose another folder"
            )
    return state
