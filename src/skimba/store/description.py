"""What stands beside a model's weights, checked before anything is built: a JSON can ask for anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skimba.dense import DenseModel, mask_rcnn, upernet
from skimba.dense.model import tokens_of
from skimba.dense.variants import check_asked, names_of
from skimba.models import MODELS, TokenModel
from skimba.models.registry import list_models, named_model
from skimba.models.sizes import check_sizes
from skimba.quantization import is_quantized, quantize
from skimba.runtime.messages import listed, plain

FORMAT = "skimba 1"
WANTED = ("figures", "input", "model", "prune", "sizes")
INPUT = ("mean", "std", "crop_pct")  # of pretrained_cfg
SIZES = ("img_size", "in_chans", "num_classes", "global_pool")  # that a model can change after it was made
REPEATED = ("depth", "stem_convs")  # sizes that say how often a module is built
CORRECTION = "correction."
OF_PRUNING = ("scorer.", "backbone.scorer.", CORRECTION)  # a pruning's own weights, which the dense model has not
CLASSIFIER = "classifier"  # the kind of a file that names none
LARGEST_FILE = 1 << 22  # bytes: class names and figures need less
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
LEAST_CROP, LEAST_STD = 0.1, 1e-6
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Description:
    """All of a model but its weights.

    Attributes:
        model: its name.
        sizes: that differ from the name's.
        prune: its pruning as plain data; None: dense.
        input: mean and deviation of each channel, and the crop's share of a picture.
        figures: measured results, plain data.
        dtype: a key of :data:`DTYPES`.
        classes: their names; empty if unknown.
        kind: a key of :data:`MAKERS`.
        int8: whether the products of its mixers are in 8-bit integers (:func:`skimba.quantize`).
    """

    model: str
    sizes: Mapping[str, Any]
    prune: dict[str, Any] | None
    input: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    classes: tuple[str, ...] = ()
    kind: str = CLASSIFIER
    int8: bool = False

    def text(self) -> str:
        """As JSON."""
        content = {**vars(self), "classes": list(self.classes)}
        return json.dumps({"format": FORMAT, **content}, indent=2) + "\n"

    def check(self) -> None:
        """Raise ValueError, or TypeError for a size that the model does not have, unless the model can be built so."""
        if not isinstance(self.kind, str) or self.kind not in MAKERS:
            raise ValueError(f"unknown kind {plain(repr(self.kind), 80)}; known: {', '.join(MAKERS)}")
        known = list_models() if self.kind == CLASSIFIER else names_of(self.kind)
        if not isinstance(self.model, str) or self.model not in known:
            raise ValueError(f"unknown model {plain(repr(self.model), 80)}; known: {listed(known)}")
        if self.prune is not None and not isinstance(self.prune, dict):
            raise ValueError(f"prune must be a table or null, got {plain(repr(self.prune), 80)}")
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {plain(repr(self.dtype), 80)}")
        if not isinstance(self.int8, bool):
            raise ValueError(f"int8 must be true or false, got {plain(repr(self.int8), 80)}")
        name, sizes = self.model, dict(self.sizes)
        if self.kind != CLASSIFIER:
            name, sizes = check_asked(self.kind, self.model, sizes)
        variant = MODELS[name]
        check_sizes(variant.model, {**variant.sizes, **sizes})
        crop = self.input["crop_pct"]
        if not _is_number(crop) or not LEAST_CROP <= crop <= 1:
            raise ValueError(f"input.crop_pct must be a share in [{LEAST_CROP}, 1], got {plain(repr(crop), 80)}")
        for key, least in (("mean", -math.inf), ("std", LEAST_STD)):
            values = self.input[key]
            if not isinstance(values, list | tuple) or not all(_is_number(v) and v >= least for v in values):
                above = "" if key == "mean" else f" of at least {LEAST_STD}"
                raise ValueError(f"input.{key} must be a list of numbers{above}, got {plain(repr(values), 80)}")
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes must be a list of names, got {plain(repr(self.classes), 80)}")

    def check_weights(self, shapes: Shapes) -> None:
        """Raise as :meth:`check`, and ValueError unless the model takes weights of these shapes. Nothing large is built."""
        self.check()
        for name in REPEATED:
            if self.sizes.get(name, 0) > len(shapes):
                raise ValueError(f"sizes.{name} is {self.sizes[name]}, and there are only {len(shapes)} weights")
        try:
            with torch.device("meta"):
                model = self._made()
        except (RuntimeError, OverflowError) as error:
            raise ValueError(f"no model can have these sizes: {plain(error)}") from error
        for key in ("mean", "std"):
            if len(self.input[key]) != (chans := tokens_of(model).in_chans):
                raise ValueError(f"input.{key} has {len(self.input[key])} numbers, the model {chans} channels")
        if self.classes and len(self.classes) != model.num_classes:
            raise ValueError(f"there are {len(self.classes)} names of classes, and the model has {model.num_classes}")
        own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: shape for name, shape in shapes.items() if not name.startswith(OF_PRUNING)}
        if odd := sorted(name for name in own.keys() | found.keys() if own.get(name) != found.get(name)):
            first = odd[0]
            raise ValueError(
                f"the weights are not those of {self.model} with these sizes: {listed(odd)} differ (the first: "
                f"{found.get(first, 'missing')} in the file, {own.get(first, 'none')} in the model)"
            )

    def _made(self) -> TokenModel | DenseModel:
        model: TokenModel | DenseModel = MAKERS[self.kind](self.model, **self.sizes).to(DTYPES[self.dtype])
        return quantize(model) if self.int8 else model

    def build(self) -> TokenModel | DenseModel:
        """The model before its pruning, with random weights."""
        model = self._made()
        config = tokens_of(model).pretrained_cfg
        for key in INPUT:
            value = self.input[key]
            config[key] = tuple(value) if isinstance(value, list) else value
        if self.classes:
            config["label_names"] = self.classes
        if isinstance(model, DenseModel):
            model.pictures.image_mean, model.pictures.image_std = list(self.input["mean"]), list(self.input["std"])
        return model


def describe(model: TokenModel | DenseModel, prune: dict[str, Any] | None, figures: Mapping[str, Any]) -> Description:
    """The description of a model that :func:`skimba.create_model`, ``mask_rcnn`` or ``upernet`` made.

    Raises:
        ValueError: a model of unknown name, or one that was changed so that its name and sizes no longer say what it is.
    """
    config = tokens_of(model).pretrained_cfg
    kind, name, sizes = _dense(model) if isinstance(model, DenseModel) else _classifier(model)
    floating = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    kinds = [key for key, dtype in DTYPES.items() if dtype in floating]
    names = tuple(config.get("label_names") or ())
    description = Description(
        kind=kind,
        model=name,
        sizes=sizes,
        prune=prune,
        input={key: config[key] for key in INPUT},
        figures=dict(figures),
        dtype=next(
            (kind for kind in kinds if kind != "float32"), "float32"
        ),  # some parameters stay float32 in any model
        classes=names if len(names) == sizes["num_classes"] else (),
        int8=is_quantized(model),
    )
    try:
        description.check_weights({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()})
    except (ValueError, TypeError) as error:
        raise ValueError(f"this model was changed so that it could not be read back: {error}") from error
    return description


def _classifier(model: TokenModel) -> tuple[str, str, dict[str, Any]]:
    """Kind, name and sizes."""
    config = model.pretrained_cfg
    if (name := config.get("architecture")) is None:
        raise ValueError("only a model that skimba.create_model made can be written: no other knows its name and sizes")
    head = model.get_classifier()
    sizes = {size: getattr(model, size) for size in SIZES}
    if isinstance(head, nn.Linear):  # it may have been replaced
        sizes["num_classes"] = head.out_features
    return CLASSIFIER, name, {**config["sizes"], **sizes}


def _dense(model: DenseModel) -> tuple[str, str, dict[str, Any]]:
    """Kind, name and sizes."""
    if not model.made:
        raise ValueError(
            "only a model that skimba.mask_rcnn or skimba.upernet made can be written: no other knows its sizes"
        )
    if callable(model.backbone.restore):
        raise ValueError("a restore that is a function cannot be written: name one of skimba.tokens.RESTORE")
    return model.made["kind"], model.made["model"], {**model.made["sizes"], "restore": model.backbone.restore}


def read_description(path: Path) -> Description:
    """What a JSON of :func:`skimba.save_model` says.

    Raises:
        ValueError: it is not such a JSON.
        OSError: it cannot be read.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} is larger than {LARGEST_FILE} bytes, which no description of a model is")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {plain(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not set(WANTED) <= content.keys():
        raise ValueError(f"{path} is not of the format {FORMAT!r} with {', '.join(WANTED)}")
    tables = all(isinstance(content[name], dict) for name in ("sizes", "input", "figures"))
    if not tables or not set(INPUT) <= content["input"].keys():
        raise ValueError(f"{path}: sizes, figures and input must be tables, input with {', '.join(INPUT)}")
    classes = content.get("classes", [])
    return Description(
        **{name: content[name] for name in WANTED},
        kind=content.get("kind", CLASSIFIER),
        dtype=content.get("dtype", "float32"),
        classes=tuple(classes) if isinstance(classes, list) else classes,
        int8=content.get("int8", False),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


MAKERS: dict[str, Callable[..., Any]] = {CLASSIFIER: named_model, "mask_rcnn": mask_rcnn, "upernet": upernet}
