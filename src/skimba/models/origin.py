"""Of which task and family a checkpoint is. Vim and VideoMamba have weights of the same names and shapes, and only one place of
the class token is right for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

ARCHITECTURE = "architecture"  # in the metadata of a .safetensors that skimba writes: the model's name
# How names of models and published files begin, ours and the official ones. PlainMamba's weights have names of their own.
FAMILIES = {"vim_": "Vim", "videomamba_": "VideoMamba", "mambar_": "Mamba-Reg", "local_vim_": "LocalVim"}

CLASSIFIER, UNKNOWN = "a classifier (skimba.create_model)", "an unknown kind of model"
# What a checkpoint's names begin with, for each kind of model that has some.
KINDS = {
    "a Mask R-CNN (skimba.mask_rcnn)": "roi_head.",
    "a RetinaNet, which skimba does not have": "bbox_head.",
    "a UperNet (skimba.upernet)": "decode_head.",
    CLASSIFIER: "head.",
}


def kind_of(names: Iterable[str]) -> str:
    """What kind of model has weights of these names: a key of :data:`KINDS`, or :data:`UNKNOWN`."""
    known = tuple(names)
    return next((kind for kind, start in KINDS.items() if any(name.startswith(start) for name in known)), UNKNOWN)


def check_family(family: str, path: Path, told: Any, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a checkpoint is of another family than the model.

    Args:
        family: the model's: a value of :data:`FAMILIES`; of any other nothing is known.
        path: of the file: an official file keeps its published name.
        told: what the file says of itself beside the weights: a model's name, or nothing.
        weights: its state dict.
    """
    if family not in FAMILIES.values():
        return
    for found, reason in (
        (family_of(told), f"it says that its model is {told!r}"),
        (_published(path.stem), "that is the name of a published file"),
        (
            _trained(weights),
            "the forward scan of its last block was not trained, as where the class token stands first",
        ),
    ):
        if found is not None and found != family:
            raise ValueError(f"{path} is a checkpoint of {found}, and the model is a {family}: {reason}")


def family_of(name: Any) -> str | None:
    """The family of a model by its name, ours or the official code's; None if it says nothing."""
    if not isinstance(name, str):
        return None
    return next((family for start, family in FAMILIES.items() if name.startswith(start)), None)


def _published(stem: str) -> str | None:
    return family_of(stem) if re.fullmatch(PUBLISHED, stem) else None


def _trained(weights: Mapping[str, Tensor]) -> str | None:
    """VideoMamba, where nothing but its training explains the rates of the last block: read by a class token that stands first
    and sees only itself, the forward scan gets no gradient, and its rates stay equal in all channels, as they were made; those
    of the other blocks do not. (Where all tokens were distilled, as in VideoMamba-M and -B, this tells nothing.)"""
    rates = {int(match[1]): x for name, x in weights.items() if (match := re.fullmatch(FORWARD_RATES, name))}
    equal = [bool((rates[block] == rates[block][:1]).all()) for block in sorted(rates)]
    return "VideoMamba" if equal and equal[-1] and not any(equal[:-1]) and len(equal) > 1 else None


FORWARD_RATES = r"layers\.(\d+)\.mixer\.A_log"
PUBLISHED = (
    r"vim_[tsb]_midclstok_.+|videomamba_[tsmb]16_.+_res\d+.*|mambar_\w+_patch16_224|local_vim_tiny(_middle_cls_token)?"
)
