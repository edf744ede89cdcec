"""From the command line's arguments to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from skimba.data.pictures import Mode
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.dense.variants import VARIANTS
from skimba.models import TokenModel
from skimba.pruning import prune, read_settings
from skimba.quantization import quantize
from skimba.runtime.files import check_regular
from skimba.store import create_model
from skimba.store.create import make_model
from skimba.store.publish import HUB, load_model
from skimba.training import Recipe, read_recipe


def find_model(
    source: str | Recipe,
    pruning: dict[str, Any] | None,
    checkpoint: Path | None = None,
    weights: bool = True,
    classes: int | None = None,
    int8: bool = False,
) -> Any:
    """The classifier, detector or segmenter of a name, a recipe or a file of save_model; ``pruning`` overrides theirs.

    Args:
        weights: whether trained weights matter; a file's are always there.
        classes: of a recipe's model that does not start from weights.
        int8: quantise it (:func:`skimba.quantize`).
    """
    if isinstance(source, str) and source.endswith(".toml"):
        source = read_recipe(source)
    if isinstance(source, Recipe):
        sizes = {} if classes is None else {"num_classes": classes}
        model: Any = source.dense_model(checkpoint=checkpoint, weights=weights, **sizes)
        pruning = pruning or (None if source.prune is None else dict(source.prune))
    elif source.startswith(HUB) or source.endswith(".safetensors"):
        if checkpoint is not None:
            raise ValueError("a model file has its own weights: give a name with --checkpoint")
        model = load_model(source)
    elif (kind := source.partition(":")[0]) in VARIANTS:
        name = source.partition(":")[2]
        published = next(iter(VARIANTS[kind][name].weights), False) if name in VARIANTS[kind] else False
        model = make_model(kind, name, published if weights and checkpoint is None else False, checkpoint)
    else:
        model = create_model(source, pretrained=weights and checkpoint is None, checkpoint=checkpoint)
    model = model if pruning is None else prune(model, **read_settings(pruning))
    return quantize(model) if int8 else model


def mode_of(model: TokenModel | DenseModel) -> Mode:
    """How pictures are decoded for a model."""
    return "L" if tokens_of(model).in_chans == 1 else "RGB"


def prune_arguments(method: str | None, schedule: str | None) -> dict[str, Any] | None:
    """Arguments of prune as plain data, or None where the command line asks for no pruning."""
    given: dict[str, Any] = {}
    if method is not None:
        given = _read_pruning(Path(method)) if method.endswith(".json") else {"method": method}
    if schedule is not None:
        given = {**given, "schedule": parse_schedule(schedule)}
    return given or None


def _read_pruning(path: Path) -> dict[str, Any]:
    """What ``skimba schedule`` wrote."""
    check_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    try:
        return read_settings(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse_schedule(text: str) -> dict[str, Any]:
    """Plain data from text: ``"5:0.8,10:100,15:-20"`` -> ``{"5": 0.8, "10": {"count": 100}, "15": {"remove": 20}}``, or
    ``"flops:0.6"`` -> ``{"flops": 0.6}``."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        block, colon, amount = part.strip().partition(":")
        if not colon or block in found or not (block.isdecimal() or block == "flops"):
            raise ValueError(f"--schedule takes BLOCK:SHARE pairs such as 5:0.8,10:0.8, or flops:0.6, got {text!r}")
        try:
            found[block] = {"remove": -int(amount)} if amount.startswith("-") else float(amount)
            if block != "flops" and amount.isdecimal() and int(amount) > 1:
                found[block] = {"count": int(amount)}
        except ValueError:
            raise ValueError(
                f"--schedule takes a share, a number of tokens, or how many go (-20), got {part!r}"
            ) from None
    return found
