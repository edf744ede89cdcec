"""Reading checkpoints: official ``.pth`` files and ``.safetensors``, without ever running code from them."""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor

from skimba.layers.patch_embed import fit_positions, fit_times
from skimba.models.base import TokenModel
from skimba.models.origin import ARCHITECTURE, CLASSIFIER, UNKNOWN, check_family, kind_of
from skimba.runtime.messages import listed, plain

# The only classes besides tensors and plain containers that the official files hold (their training arguments).
HARMLESS_TYPES: list[Any] = [argparse.Namespace]
# Where the forms of checkpoint keep their weights, in order of trust: DeiT style (Vim), mmcls style (PlainMamba), timm.
WEIGHT_KEYS = {
    "model": ("model", "state_dict"),
    "ema": ("model_ema", "state_dict_ema", "ema"),  # a moving average over the training's steps
}
EMA_BUFFER = (
    "ema_"  # mmcv's hook keeps copies under such names beside the weights, which then hold the average themselves
)
MOST = 10  # shapes in a message
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_checkpoint` did beyond a plain copy. Lists of parameter names.

    Attributes:
        resized: position embeddings brought to the model's grid, patches brought to its size.
        reinitialised: parts of the head that stayed as they were.
        adapted: the first convolution, brought to other image channels.
        ignored: buffers of a moving average beside the weights.
    """

    resized: list[str] = field(default_factory=list)
    reinitialised: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read_state_dict(path: str | Path, weights: str = "model") -> dict[str, Tensor]:
    """The weights in a checkpoint file.

    Args:
        path: ``.safetensors``, or a ``.pth``/``.pt`` of one of the official forms: ``{"model": …}``, ``{"state_dict": …}`` or
            the bare state dict.
        weights: ``"model"``, or ``"ema"`` for the moving average that some files hold beside (``{"model_ema": …}``).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, not a checkpoint, or a pickle that holds anything but tensors and plain data; or it
            has no such weights.
    """
    return _read(Path(path), weights)[0]


def _read(path: Path, weights: str) -> tuple[dict[str, Tensor], Any]:
    """The weights, and the name of their model if the file tells one: in its training arguments, or in its metadata."""
    if weights not in WEIGHT_KEYS:
        raise ValueError(f"unknown weights {weights!r}; known: {', '.join(WEIGHT_KEYS)}")
    if path.suffix != ".safetensors":
        content = read_plain_data(path)
        arguments = content.get("args") if isinstance(content, Mapping) else None
        if isinstance(arguments, argparse.Namespace):
            arguments = vars(arguments)
        told = arguments.get("model") if isinstance(arguments, Mapping) else None
        return _weights_in(content, path, weights), told
    if weights != "model":
        raise ValueError(f"{path} holds one set of weights: take weights='model', got {weights!r}")
    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(ARCHITECTURE)
        return load_file(path), told
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete .safetensors file: {plain(error)}") from error


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a ``.safetensors`` file, from its first bytes alone. Raises as :func:`read_state_dict`."""
    path = Path(path)
    _check_there(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete .safetensors file: {plain(error)}") from error


def read_plain_data(path: Path) -> Any:
    """Tensors and plain data in a file of ``torch.save``; code in it is never run. Raises as :func:`read_state_dict`."""
    _check_there(path)
    try:
        with torch.serialization.safe_globals(HARMLESS_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd pickle protocol: it is read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {plain(asked[1], 80)}" if asked else "it is not made of tensors and plain data"
        raise ValueError(f"{path} is no plain weights file, and code in it is never run: {reason}") from error
    except Exception as error:  # arbitrary bytes can make a reader raise anything
        words = str(error)
        reason = "" if "weights_only" in words else f": {plain(words)}"  # torch advises to read it unsafely
        raise ValueError(f"{path} is truncated or not a checkpoint ({type(error).__name__}{reason})") from error


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")


def _weights_in(content: object, path: Path, weights: str) -> dict[str, Tensor]:
    keys = WEIGHT_KEYS[weights]
    inner = [content[key] for key in keys if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    if weights != "model" and not inner:
        raise ValueError(f"{path} holds no moving average (under {', '.join(keys)}): take weights='model'")
    found = inner[0] if inner else content
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path} holds no state dict: expected names with tensors, bare or under {keys}")
    if odd := [name for name, tensor in found.items() if not isinstance(name, str) or not _is_plain(tensor)]:
        raise ValueError(f"{path} holds tensors that are not plain arrays of the size of their data: {listed(odd)}")
    return dict(found)


def _is_plain(tensor: Tensor) -> bool:
    """Whether each value of a tensor is stored: a small file can claim a tensor of any size."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def load_checkpoint(
    model: TokenModel,
    path: str | Path,
    *,
    reset_head: bool = False,
    adapt_channels: bool = False,
    resize_patches: bool = False,
    weights: str = "model",
) -> LoadReport:
    """Load weights into a model, strictly.

    Position embeddings are resized if the model's grid, or its number of frames, differs. Anything else that does not fit is
    an error that names it, before the model is changed.

    Args:
        model: a :class:`~skimba.models.VisionMamba` or :class:`~skimba.models.PlainMamba`.
        path: see :func:`skimba.models.read_state_dict`.
        reset_head: keep the model's own (fresh) head, or none, where the checkpoint's has another number of classes.
        adapt_channels: bring the first convolution to the model's image channels, as timm does.
        resize_patches: bring the convolution over patches to the model's patch size, as timm does (FlexiViT, arXiv 2212.08013).
        weights: ``"model"`` or ``"ema"``, see :func:`skimba.models.read_state_dict`.

    Raises:
        FileNotFoundError, ValueError: as :func:`skimba.models.read_state_dict`; ValueError too if names, shapes or kinds of
            numbers do not match, if the checkpoint is of another task or family (:mod:`skimba.models.origin`), or if some
            weights are not finite.
    """
    (found, told), own = _read(Path(path), weights), model.state_dict()
    if (kind := kind_of(found)) not in (CLASSIFIER, UNKNOWN):
        raise ValueError(f"{path} holds the weights of {kind}, and this is {CLASSIFIER}")
    check_family(model.family, Path(path), told, found)
    report = LoadReport(ignored=[name for name in found if name.startswith(EMA_BUFFER)])
    if report.ignored:
        log.info("%s: %d buffers of a moving average are ignored", path, len(report.ignored))
    found = {name: tensor for name, tensor in found.items() if name not in report.ignored}
    changes = Changes(reset_head, adapt_channels, resize_patches)
    _adapt(found, own, model, changes, report)
    if problems := mismatches(found, own):
        hint = (
            " (reset_head=True starts the head afresh)" if any(f" {model.parts.head}." in p for p in problems) else ""
        )
        raise ValueError(f"{path} does not fit {type(model).__name__}: " + "; ".join(problems) + hint)
    if bad := [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{path} holds weights that are not finite (NaN or infinity): {listed(bad)}")
    model.load_state_dict(found)
    return report


class Changes(NamedTuple):
    """What may be changed of a checkpoint (see :func:`load_checkpoint`)."""

    reset_head: bool
    adapt_channels: bool
    resize_patches: bool


def _adapt(
    found: dict[str, Tensor], own: Mapping[str, Tensor], model: TokenModel, changes: Changes, report: LoadReport
) -> None:
    """Bring what is ``found`` to the shapes of the model's own, where that is allowed."""
    head, first_conv = model.parts.head + ".", model.parts.first_conv + ".weight"
    if changes.resize_patches:
        report.resized.extend(_resize_patches(found, own, model.parts.patches + ".weight"))
    for name in [n for n in found if n not in own or found[n].shape != own[n].shape]:
        if changes.reset_head and name.startswith(head):
            del found[name]
            if name in own:
                found[name] = own[name]
                report.reinitialised.append(name)
        elif name in own and name == first_conv and changes.adapt_channels and found[name].dim() == own[name].dim():
            found[name] = adapt_input_channels(found[name], model.in_chans)
            report.adapted.append(name)
        elif name in own and name in model.fixed_by_grid:
            found[name] = own[name]
        elif name in own and name.endswith("pos_embed") and found[name].shape[::2] == own[name].shape[::2]:
            found[name] = _resize_pos_embed(found[name], model)
            report.resized.append(name)
        elif name in own and name == "temporal_pos_embedding" and found[name].shape[::2] == own[name].shape[::2]:
            found[name] = fit_times(found[name], own[name].shape[1])
            report.resized.append(name)


def _resize_patches(found: dict[str, Tensor], own: Mapping[str, Tensor], name: str) -> list[str]:
    """Bring the convolution ``(o c k k)`` of that name in ``found`` to the side of the model's own; its name if it differed."""
    if name not in found or not found[name].dim() == own[name].dim() == 4:
        return []
    if (side := own[name].shape[2:]) == found[name].shape[2:]:
        return []
    found[name] = resample_patch_embed(found[name], list(side))
    return [name]


def mismatches(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """In what names, shapes and kinds of numbers of a state dict differ from the model's own, in words; empty if in nothing."""
    problems = []
    for kind, names in (("missing", own.keys() - found.keys()), ("unexpected", found.keys() - own.keys())):
        if names:
            problems.append(f"{len(names)} {kind}: {listed(sorted(names))}")
    common = sorted(own.keys() & found.keys())
    shapes = [name for name in common if found[name].shape != own[name].shape]
    problems += [
        f"shape of {name}: got {tuple(found[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in shapes[:MOST]
    ]
    if len(shapes) > MOST:
        problems.append(f"{len(shapes) - MOST} more shapes")
    floating = {name: (found[name].is_floating_point(), own[name].is_floating_point()) for name in common}
    if odd := [name for name, (one, other) in floating.items() if one != other]:
        problems.append(f"other kinds of numbers: {listed(f'{name} {found[name].dtype}' for name in odd)}")
    return problems


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution ``(o c ...)`` for other image channels, as timm adapts it: for one channel the sum, for others
    the known ones in turn, scaled so that a grey picture gives the same."""
    known = weight.shape[1]
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    repeated = torch.cat([weight.float()] * -(-channels // known), 1)[:, :channels]
    return (repeated * (known / channels)).to(weight.dtype)


def _resize_pos_embed(pos_embed: Tensor, model: TokenModel) -> Tensor:
    """Bring ``pos_embed (1 L d)`` of a square image to the model's grid; rows of extra tokens keep their values."""
    grid = model.grid[-2:]  # of one frame, if the model takes clips
    extra = len(model.position_extras(grid[0] * grid[1]))
    side = int(max(pos_embed.shape[1] - extra, 0) ** 0.5)
    if side < 1 or side * side + extra != pos_embed.shape[1]:
        raise ValueError(f"cannot resize a position embedding of {pos_embed.shape[1]} positions: not a square grid")
    return fit_positions(pos_embed, (side, side), grid, model.position_extras)
