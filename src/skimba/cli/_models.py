"""From what the command line says to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skimba.data.pictures import Mode
from skimba.models import TokenModel
from skimba.pruning import prune
from skimba.runtime.files import check_regular
from skimba.store import create_model
from skimba.store.publish import HUB, load_model
from skimba.training import Recipe, read_recipe
from skimba.training.recipe import PRUNE_ARGUMENTS


def find_model(
    source: str | Recipe,
    pruning: dict[str, Any] | None,
    checkpoint: Path | None = None,
    weights: bool = True,
    classes: int | None = None,
) -> TokenModel:
    """The model that a name, a recipe or a file of save_model means; ``pruning`` wins over what these say.

    Args:
        weights: whether trained weights matter; a file's are always there.
        classes: of a recipe's model that does not start from weights.
    """
    if isinstance(source, str) and source.endswith(".toml"):
        source = read_recipe(source)
    if isinstance(source, Recipe):
        sizes = {} if classes is None else {"num_classes": classes}
        model = source.dense_model(checkpoint=checkpoint, weights=weights, **sizes)
        pruning = pruning or (None if source.prune is None else dict(source.prune))
    elif source.startswith(HUB) or source.endswith(".safetensors"):
        if checkpoint is not None:
            raise ValueError("a model file has its own weights: give a name with --checkpoint")
        model = load_model(source)
    else:
        model = create_model(source, pretrained=weights and checkpoint is None, checkpoint=checkpoint)
    return model if pruning is None else prune(model, **pruning)


def mode_of(model: TokenModel) -> Mode:
    """How pictures are decoded for a model."""
    return "L" if model.in_chans == 1 else "RGB"


def prune_arguments(preset: str | None, keep: str | None, target_flops: float | None) -> dict[str, Any] | None:
    """Arguments of prune, or None where the command line asks for no pruning."""
    given = {"preset": preset, "keep": None if keep is None else parse_keep(keep), "target_flops": target_flops}
    wanted = {name: value for name, value in given.items() if value is not None}
    if preset is not None and preset.endswith(".json"):
        del wanted["preset"]
        wanted = {**_read_settings(Path(preset)), **wanted}
    return wanted or None


def _read_settings(path: Path) -> dict[str, Any]:
    """What ``skimba schedule`` wrote."""
    check_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or (unknown := set(content) - set(PRUNE_ARGUMENTS)):
        found = f"unknown {', '.join(sorted(unknown))}" if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} must be an object with arguments of skimba.prune, got {found}")
    return content


def parse_keep(text: str) -> dict[int, float]:
    """``"5:0.8,10:0.8"`` -> ``{5: 0.8, 10: 0.8}``."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return {int(block): float(share) for block, share in pairs}
    except ValueError:
        raise ValueError(f"--keep takes BLOCK:SHARE pairs such as 5:0.8,10:0.8, got {text!r}") from None
