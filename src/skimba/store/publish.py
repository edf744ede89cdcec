"""A model in two files that say all of it: safetensors with the weights, and a JSON beside with model, pruning and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from safetensors.torch import save_file

from skimba.models import TokenModel, load_checkpoint
from skimba.models.registry import named_model
from skimba.models.variants import HubFile, fetch
from skimba.pruning import Pruner, prune
from skimba.runtime.files import write_atomically, write_text_atomically

FORMAT = "skimba 1"
SIZES = ("img_size", "in_chans", "num_classes")
INPUT = ("mean", "std", "crop_pct")  # of pretrained_cfg
HUB = "hf-hub:"  # timm's prefix for a model in a hub repository


def save_model(model: TokenModel, path: str | Path, figures: Mapping[str, Any] | None = None) -> Path:
    """Write a model, dense or pruned, as ``path`` (``.safetensors``) and a ``.json`` of the same name.

    Args:
        model: one that :func:`skimba.create_model` made.
        figures: measured results to publish with it, plain data.

    Returns:
        The JSON's path.

    Raises:
        ValueError: another suffix, a model of unknown name, or a pruning with a function of one's own, which no file can hold.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {path.name}")
    if (name := model.pretrained_cfg.get("architecture")) is None:
        raise ValueError("only a model that skimba.create_model made can be written: no other knows its name and sizes")
    pruning = model.reducer.settings() if isinstance(model.reducer, Pruner) else None
    content = {
        "format": FORMAT,
        "model": name,
        "sizes": {**{size: getattr(model, size) for size in SIZES}, **model.pretrained_cfg["sizes"]},
        "prune": pruning,
        "input": {key: model.pretrained_cfg[key] for key in INPUT},
        "figures": dict(figures or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    write_atomically(path, lambda partial: save_file(weights, partial))
    beside = path.with_suffix(".json")
    write_text_atomically(beside, json.dumps(content, indent=2) + "\n")
    return beside


def load_model(path: str | Path) -> TokenModel:
    """The model, pruned as it was, that :func:`save_model` wrote.

    Args:
        path: the ``.safetensors`` with its ``.json`` beside, or ``hf-hub:USER/REPOSITORY``, pushed by
            :func:`skimba.store.push_model`.

    Raises:
        FileNotFoundError: one of the files is missing.
        ConnectionError: the hub cannot be reached.
        ValueError, TypeError: the JSON is not what ``save_model`` writes, or the weights do not fit.
    """
    if isinstance(path, str) and path.startswith(HUB):
        repository = path.removeprefix(HUB)
        weights, beside = (fetch(HubFile(repository, f"model{suffix}")) for suffix in (".safetensors", ".json"))
    else:
        weights = Path(path)
        beside = weights.with_suffix(".json")
        if not beside.is_file():
            raise FileNotFoundError(
                f"no {beside.name} beside {weights}: give the model's name, or a file of save_model"
            )
    content = _read(beside)
    model = named_model(content["model"], **content["sizes"])
    for key in INPUT:
        value = content["input"][key]
        model.pretrained_cfg[key] = tuple(value) if isinstance(value, list) else value
    if content["prune"] is not None:
        model = prune(model, **content["prune"])
    load_checkpoint(model, weights)  # after the pruning, which may have weights of its own
    return model


def push_model(path: str | Path, repository: str, private: bool = False) -> None:
    """Upload what :func:`save_model` wrote to a Hugging Face Hub repository, with ``huggingface_hub``'s login.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_model`.
    """
    weights = Path(path)
    load_model(weights)  # nothing is published that cannot be loaded
    hub = HfApi()
    hub.create_repo(repository, private=private, exist_ok=True)
    for file in (weights, weights.with_suffix(".json")):
        hub.upload_file(path_or_fileobj=file, path_in_repo=f"model{file.suffix}", repo_id=repository)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    wanted = {"format", "model", "sizes", "prune", "input", "figures"}
    if not isinstance(content, dict) or content.get("format") != FORMAT or not wanted <= content.keys():
        raise ValueError(f"{path} is not of the format {FORMAT!r} with {', '.join(sorted(wanted))}")
    tables = all(isinstance(content[name], dict) for name in ("sizes", "input"))
    if not tables or not set(INPUT) <= content["input"].keys():
        raise ValueError(f"{path}: sizes and input must be tables, input with {', '.join(INPUT)}")
    return content
