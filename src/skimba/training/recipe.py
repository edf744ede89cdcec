"""What decides the outcome of a training, besides the pictures: a dataclass, or a TOML file that fills it."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch

from skimba.models import TokenModel
from skimba.pruning import ARGUMENTS, read_settings
from skimba.store import create_model
from skimba.tasks import TASKS, Task

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AUGMENTATIONS = ("shift", "imagenet")
SMOKE_SIZES = {"img_size": 64, "embed_dim": 32}


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of a training, besides the pictures.

    Attributes:
        model: a name of :func:`skimba.list_models`.
        sizes: overrides of the model's sizes, for instance ``{"num_classes": 10, "drop_path_rate": 0.1}``.
        pretrained: start from the model's own weights.
        checkpoint: start from the weights in this file.
        prune: arguments of :func:`skimba.prune` as plain data, for instance ``{"method": "hold", "schedule": {"flops": 0.6}}``:
            tokens are removed in training too.
        teacher: ``"dense"``: the unpruned model as it was at the start also teaches, by the Kullback-Leibler divergence
            of its answers times ``distillation`` (R-MeeTo, arXiv 2412.12496).
        batch_size: pictures for one step of the optimiser, over all processes.
        micro_batch_size: pictures at once in a process; None: its whole share of the batch. It changes memory, not gradients.
        optimizer: one of timm's.
        learning_rate: the peak, after a linear warm-up; a cosine decays from there to ``min_learning_rate``.
        warmup_share: of all steps.
        clip_norm: largest norm of the gradient; 0: no clipping.
        ema_decay: of the moving average of the weights that is then evaluated and written; 0: none.
        augmentation: ``"shift"`` for small pictures of one thing; ``"imagenet"``: DeiT's, of which ``auto_augment``,
            ``color_jitter`` and ``erasing`` are the parts.
        mixup, cutmix: their alphas; 0: neither. Partners come from the micro batch.
        repeats: how often each picture occurs in an epoch, differently augmented (repeated augmentation); an epoch
            keeps its length.
        mean, std, crop_share: how a picture is normalised and cropped, if not as the model's weights expect.
        dtype: ``"fp32"``, or ``"bf16"`` for autocast to bfloat16; state and step of the scan stay float32.
        smoke: a narrow, small version from random weights: to see in seconds that everything runs.

    Raises:
        ValueError, TypeError: a value out of range or of another type; the message says what is allowed.
    """

    model: str
    sizes: Mapping[str, Any] | None = None
    pretrained: bool = False
    checkpoint: str | None = None
    prune: Mapping[str, Any] | None = None
    teacher: str | None = None
    distillation: float = 0.5
    epochs: int = 5
    batch_size: int = 64
    micro_batch_size: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    min_learning_rate: float = 0.0
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    label_smoothing: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    augmentation: str = "shift"
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.3
    erasing: float = 0.25
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_share: float | None = None
    dtype: str = "fp32"
    seed: int = 0
    smoke: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(Recipe)
        for name in (field.name for field in fields(self)):
            value = _checked(name, getattr(self, name), hints[name])
            _check_finite(name, value)
            object.__setattr__(self, name, value)
        for name, allowed in (("dtype", tuple(DTYPES)), ("augmentation", AUGMENTATIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.teacher not in (None, "dense"):
            raise ValueError(f"teacher must be 'dense' or None, got {self.teacher!r}")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("give pretrained = true or a checkpoint, not both")
        if self.teacher is not None and not (self.from_weights or self.smoke):
            raise ValueError(
                "a dense teacher needs a model that starts from weights: pretrained=True or checkpoint=PATH"
            )
        for name in ("epochs", "batch_size", "micro_batch_size", "learning_rate", "repeats"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name in ("warmup_share", "label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in (
            "weight_decay",
            "distillation",
            "min_learning_rate",
            "clip_norm",
            "erasing",
            "mixup",
            "cutmix",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.std is not None and min(self.std, default=0.0) <= 0:
            raise ValueError(f"std must be above 0 in each channel, got {self.std}")
        if self.crop_share is not None and not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share must be in (0, 1], got {self.crop_share}")
        for name in self.prune or {}:
            if name not in ARGUMENTS:
                raise ValueError(unknown_key(f"prune.{name}", [f"prune.{known}" for known in ARGUMENTS]))
        read_settings(self.prune or {})

    def task(self, model: TokenModel) -> Task:
        """The model's task with this recipe's settings.

        Raises:
            ValueError: a setting that this task does not read, so that it would have no effect.
        """
        kind = TASKS[model.task]
        own = {field.name for field in fields(kind)}
        defaults = {field.name: field.default for field in fields(Recipe)}
        for name in {field.name for other in TASKS.values() for field in fields(other)} - own:
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} has no effect on the task {model.task}")
        task: Task = kind(**{name: getattr(self, name) for name in own})
        return task

    @property
    def from_weights(self) -> bool:
        """Whether the model starts from trained weights."""
        return self.pretrained or self.checkpoint is not None

    def as_smoke(self) -> Recipe:
        """The same on a narrow model with small images, a small batch and one epoch, from random weights."""
        sizes = {**(self.sizes or {}), **SMOKE_SIZES}
        return replace(
            self,
            smoke=True,
            sizes=sizes,
            pretrained=False,
            checkpoint=None,
            epochs=1,
            batch_size=4,
            micro_batch_size=None,
        )

    def dense_model(self, *, checkpoint: str | Path | None = None, weights: bool = True, **sizes: Any) -> TokenModel:
        """The model before pruning.

        Args:
            checkpoint: weights that override the recipe's.
            weights: load weights at all.
            sizes: defaults for a model that does not start from weights.
        """
        path = checkpoint or self.checkpoint
        sizes = {**({} if self.from_weights or path else sizes), **(self.sizes or {})}
        model = create_model(
            self.model, weights and self.pretrained and path is None, path if weights else None, **sizes
        )
        model.pretrained_cfg |= {
            name: value
            for name, value in (("mean", self.mean), ("std", self.std), ("crop_pct", self.crop_share))
            if value is not None
        }
        return model


def read_recipe(source: str | Path, overrides: Iterable[str | tuple[str, Any]] = ()) -> Recipe:
    """A recipe from a TOML file, or the plain one for a model's name.

    Args:
        source: a path that ends in ``.toml``, or a name of :func:`skimba.list_models`.
        overrides: settings that override it, as pairs or as text: ``[("epochs", 3), "prune.method=top"]``.

    Raises:
        FileNotFoundError: no such file.
        ValueError, TypeError: not TOML, an unknown key (the nearest is suggested), or a value that is not allowed.
    """
    content: dict[str, Any] = {"model": str(source)}
    if str(source).endswith(".toml"):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {path}")
        try:
            content = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
    for key, value in (_key_and_value(given) if isinstance(given, str) else given for given in overrides):
        _set(content, key, value)
    known = [field.name for field in fields(Recipe)]
    for key in content:
        if key not in known:
            raise ValueError(unknown_key(key, known))
    if missing := [f.name for f in fields(Recipe) if f.default is MISSING and f.name not in content]:
        raise ValueError(f"{source} does not say {', '.join(missing)}")
    recipe = Recipe(**content)
    return recipe.as_smoke() if recipe.smoke else recipe


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that is not known, with the nearest that is."""
    known = list(known)
    near = difflib.get_close_matches(key, known, 1)
    return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")


def as_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, without what does not change the outcome."""
    return {name: value for name, value in asdict(recipe).items() if name != "micro_batch_size"}


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"overrides are key=value, got {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value  # text without its quotes


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = content.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{key}: {part} is not a table")
        content = inner
    content[last] = value


def _check_finite(name: str, value: Any) -> None:
    """Raise ValueError where a number of a setting is NaN or infinite."""
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        inner = ((f"{name}.{key}", one) for key, one in value.items())
    elif isinstance(value, (list, tuple)):
        inner = ((name, one) for one in value)
    for key, one in inner:
        _check_finite(key, one)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value, if it has the field's type; integers are accepted as floats, lists as tuples."""
    options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    for option in options:
        kind = get_origin(option) or option
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is tuple and isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
            return tuple(map(float, value))
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
    allowed = " or ".join(
        "nothing" if o is type(None) else getattr(get_origin(o) or o, "__name__", str(o)) for o in options
    )
    raise TypeError(f"{name} must be {allowed.replace('Mapping', 'table')}, got {value!r}")
