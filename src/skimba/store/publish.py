"""A model in two files: its weights as safetensors and, beside them, JSON with the model's name, pruning and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from skimba.dense import DenseModel
from skimba.dense.loading import load_dense
from skimba.dense.model import tokens_of
from skimba.models import TokenModel, load_checkpoint
from skimba.models.checkpoint import read_shapes
from skimba.models.origin import ARCHITECTURE
from skimba.models.variants import HubFile, fetch
from skimba.pruning import Pruner, prune, read_settings
from skimba.pruning.verbs import with_correction
from skimba.runtime.files import write_atomically, write_text_atomically
from skimba.runtime.messages import listed, plain
from skimba.store.description import CORRECTION, describe, read_description

HUB = "hf-hub:"  # timm's prefix for a model in a hub repository
LONGEST = 500  # characters of a message that may repeat what a file says


def save_model(model: TokenModel | DenseModel, path: str | Path, figures: Mapping[str, Any] | None = None) -> Path:
    """Write a model, dense or pruned, as ``path`` (``.safetensors``) and a ``.json`` of the same name.

    The dtype and, where ``model.pretrained_cfg["label_names"]`` has them, the names of the classes go with it.

    Args:
        model: one that :func:`skimba.create_model`, :func:`skimba.mask_rcnn` or :func:`skimba.upernet` made.
        figures: measured results to publish with it, plain data.

    Returns:
        The JSON's path.

    Raises:
        ValueError: another suffix, a model of unknown name or changed beyond its name, weights that are not finite, or a pruning
            with a function of one's own, which no file can hold.
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are written as .safetensors, got {path.name}")
    reducer = tokens_of(model).reducer
    pruning = reducer.to_dict() if isinstance(reducer, Pruner) else None
    description = describe(model, pruning, figures or {})
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    if bad := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise ValueError(f"weights that are not finite (NaN or infinity) are not written: {listed(bad)}")
    write_atomically(path, lambda partial: _save(weights, description.model, partial))
    beside = path.with_suffix(".json")
    write_text_atomically(beside, description.text())
    return beside


def _save(weights: dict[str, Tensor], architecture: str, path: str) -> None:
    """safetensors' own error for a file that cannot be written is no OSError."""
    try:
        save_file(weights, path, {"format": "pt", ARCHITECTURE: architecture})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def load_model(path: str | Path) -> Any:
    """The model, detector or segmenter, pruned as it was, that :func:`save_model` wrote.

    Args:
        path: the ``.safetensors`` with its ``.json`` beside, or ``hf-hub:USER/REPOSITORY``, pushed by
            :func:`skimba.store.push_model`.

    Raises:
        FileNotFoundError: one of the files is missing.
        ConnectionError: the hub cannot be reached.
        ValueError, TypeError: the JSON is not what ``save_model`` writes, or the weights do not fit; nothing large is built then.
    """
    if isinstance(path, str) and path.startswith(HUB):
        repository = path.removeprefix(HUB)
        weights, beside = (fetch(HubFile(repository, f"model{suffix}")) for suffix in (".safetensors", ".json"))
    else:
        weights = Path(path)
        beside = weights.with_suffix(".json")
        _check_both(weights, beside)
    description = read_description(beside)
    try:
        shapes = read_shapes(weights)
        description.check_weights(shapes)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{beside}: {plain(error, LONGEST)}") from error
    model = description.build()
    if description.prune is not None:
        try:
            model = prune(model, **read_settings(description.prune))
        except Exception as error:  # what a method makes of arbitrary plain data is not bounded
            raise ValueError(f"{beside}: this is no pruning of the model: {plain(error, LONGEST)}") from error
        model = with_correction(model, any(name.startswith(CORRECTION) for name in shapes))
    # after the pruning, which may have weights of its own
    load_dense(model, weights) if isinstance(model, DenseModel) else load_checkpoint(model, weights)
    return model


def push_model(path: str | Path, repository: str, private: bool = False) -> None:
    """Upload what :func:`save_model` wrote to a Hugging Face Hub repository, with ``huggingface_hub``'s login.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_model`.
        ConnectionError: the hub cannot be reached, or refuses.
    """
    weights = Path(path)
    load_model(weights)  # nothing is published that cannot be loaded
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        for file in (weights, weights.with_suffix(".json")):
            hub.upload_file(path_or_fileobj=file, path_in_repo=f"model{file.suffix}", repo_id=repository)
    except Exception as error:  # the hub client raises its HTTP library's own types
        raise ConnectionError(
            f"cannot push to {repository} ({type(error).__name__}: {error}); {weights} is written and can be pushed again"
        ) from error


def _check_both(weights: Path, beside: Path) -> None:
    if weights.suffix != ".safetensors":
        raise ValueError(f"a model file is a .safetensors with a .json beside, got {weights.name}")
    if not weights.is_file():
        also = "" if beside.is_file() else f", and no {beside.name} beside it"
        raise FileNotFoundError(f"no weights file at {weights}{also}")
    if not beside.is_file():
        raise FileNotFoundError(f"no {beside.name} beside {weights}: give the model's name, or a file of save_model")
