"""Reading checkpoints: official ``.pth`` files and ``.safetensors``, without ever running code from them."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from skimba.layers.patch_embed import fit_positions

# The only classes besides tensors and plain containers that the official files hold (their training arguments).
HARMLESS_TYPES: list[Any] = [argparse.Namespace]
# Where the forms of checkpoint keep the weights, in order of trust: DeiT style (Vim), mmcls style (PlainMamba).
WEIGHT_KEYS = ("model", "state_dict")


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_checkpoint` did beyond a plain copy. Lists of parameter names."""

    resized: list[str]
    reinitialised: list[str]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint file.

    Args:
        path: ``.safetensors``, or a ``.pth``/``.pt`` of one of the official forms: ``{"model": …}``, ``{"state_dict": …}`` or
            the bare state dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, not a checkpoint, or a pickle that holds anything but tensors and plain data.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return _weights_in(read_plain_data(path), path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete .safetensors file: {error}") from error


def read_plain_data(path: Path) -> Any:
    """Tensors and plain data in a file of ``torch.save``; code in it is never run. Raises as :func:`read_state_dict`."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    try:
        with torch.serialization.safe_globals(HARMLESS_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an odd pickle protocol: it is read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "class" in line), str(error))
        raise ValueError(f"{path} is no plain weights file, and code in it is never run: {reason.strip()}") from error
    except Exception as error:  # what a reader raises on arbitrary bytes is not bounded
        raise ValueError(f"{path} is truncated or not a checkpoint ({type(error).__name__}: {error})") from error


def _weights_in(content: object, path: Path) -> dict[str, Tensor]:
    for key in WEIGHT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} holds no state dict: expected names with tensors, bare or under {WEIGHT_KEYS}")
    return dict(content)


def load_checkpoint(model: nn.Module, path: str | Path, *, reset_head: bool = False) -> LoadReport:
    """Load weights into a model, strictly.

    The position embedding is resized if the model's grid differs. Anything else that does not fit is an error that names
    it, before the model is changed.

    Args:
        model: a :class:`~skimba.models.VisionMamba` or :class:`~skimba.models.PlainMamba`.
        path: see :func:`skimba.models.read_state_dict`.
        reset_head: keep the model's own (fresh) head where the checkpoint's has another number of classes.

    Raises:
        FileNotFoundError, ValueError: as :func:`skimba.models.read_state_dict`; ValueError too if names or shapes do not match.
    """
    found = read_state_dict(path)
    own = model.state_dict()
    resized, reinitialised = [], []
    for name in [n for n in found if n in own and found[n].shape != own[n].shape]:
        if name.endswith("pos_embed") and found[name].shape[-1] == own[name].shape[-1]:
            found[name] = _resize_pos_embed(found[name], model)
            resized.append(name)
        elif reset_head and name.startswith("head."):
            found[name] = own[name]
            reinitialised.append(name)
    if problems := mismatches(found, own):
        hint = " (reset_head=True starts the head afresh)" if any(" head." in p for p in problems) else ""
        raise ValueError(f"{path} does not fit {type(model).__name__}: " + "; ".join(problems) + hint)
    model.load_state_dict(found)
    return LoadReport(resized, reinitialised)


def mismatches(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """In what the names and shapes of a state dict differ from the model's own, in words; empty if in nothing."""
    problems = []
    for kind, names in (("missing", own.keys() - found.keys()), ("unexpected", found.keys() - own.keys())):
        if names:
            problems.append(f"{len(names)} {kind}: {', '.join(sorted(names))}")
    problems += [
        f"shape of {name}: got {tuple(found[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in sorted(own.keys() & found.keys())
        if found[name].shape != own[name].shape
    ]
    return problems


def _resize_pos_embed(pos_embed: Tensor, model: nn.Module) -> Tensor:
    """Bring ``pos_embed (1 L d)`` of a square image to the model's grid; a class token's position stays in the middle."""
    extra = int(model.class_token_count)  # type: ignore[arg-type]
    side = int((pos_embed.shape[1] - extra) ** 0.5)
    if side * side + extra != pos_embed.shape[1]:
        raise ValueError(f"cannot resize a position embedding of {pos_embed.shape[1]} positions: not a square grid")
    return fit_positions(pos_embed, (side, side), model.grid, bool(extra))  # type: ignore[arg-type]
