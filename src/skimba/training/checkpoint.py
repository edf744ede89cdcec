"""The state of a training, written so that no kill corrupts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from skimba.data import Pictures, changes, fingerprint
from skimba.models.checkpoint import read_plain_data
from skimba.runtime.files import write_atomically
from skimba.runtime.processes import by_writer
from skimba.training.recipe import Recipe
from skimba.training.recipe_files import as_plain

CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.safetensors"
TYPES: dict[str, Any] = {
    "model": dict,
    "optimizer": dict,
    "ema": (dict, type(None)),
    "step": int,
    "loss": float,
    "recipe": dict,
    "data": dict,
}
# What 0.1.0 did not write: it cannot be compared, and the loss is only in a log.
ADDED: dict[str, Any] = {"loss": 0.0, "data": {}}
Data = dict[str, dict[str, Any]]  # fingerprints of the data sets, by split


def data_of(**sets: Pictures) -> Data:
    """Fingerprints of a training's pictures, in every process."""
    return by_writer(lambda: {name: fingerprint(pictures) for name, pictures in sets.items()})


def save_state(folder: Path, state: Mapping[str, Any], recipe: Recipe, data: Data) -> None:
    """Write what a training needs to resume (process 0 writes).

    The step determines the sampler's position and all random numbers, so neither is in the file; bfloat16 needs no scaler.
    """
    content = {**state, "recipe": as_plain(recipe), "data": data}
    by_writer(lambda: write_atomically(folder / CHECKPOINT, lambda partial: torch.save(content, partial)))


def load_state(folder: Path, recipe: Recipe, data: Data) -> dict[str, Any] | None:
    """The state that :func:`save_state` wrote, in every process, or None.

    Raises:
        ValueError: the file is not such a state, or belongs to a training by another recipe or on other pictures.
    """
    return by_writer(lambda: _read(folder / CHECKPOINT, recipe, data))


def _read(path: Path, recipe: Recipe, data: Data) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state = read_plain_data(path)
    if isinstance(state, dict):
        state = {**ADDED, **state}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in TYPES.items()):
        raise ValueError(f"{path} is not a checkpoint of this trainer; choose another folder")
    # A setting that an older version did not have had its default.
    there, wanted = {**as_plain(Recipe(recipe.model)), **state["recipe"]}, as_plain(recipe)
    changed = [f"{k}: {there.get(k)} there, {v} asked for" for k, v in wanted.items() if there.get(k) != v]
    if changed:
        raise ValueError(
            f"{path.parent} holds a training by another recipe ({'; '.join(changed)}); choose another folder"
        )
    before = {name: part if isinstance(part, dict) else {} for name, part in state["data"].items()}
    found = [f"{name}: {change}" for name, now in data.items() for change in changes(before.get(name, {}), now)]
    if before and found:
        raise ValueError(
            f"{path.parent} holds a training on other pictures ({'; '.join(found)}); "
            "bring those back or choose another folder"
        )
    return state
