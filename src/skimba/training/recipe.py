"""What decides the outcome of a training, besides the pictures: a dataclass, or a TOML file that fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch

from skimba.dense import DenseModel
from skimba.dense.variants import IMAGENET
from skimba.models import TokenModel
from skimba.pruning import ARGUMENTS, read_settings
from skimba.store.create import make_model, set_input
from skimba.store.description import CLASSIFIER, MAKERS
from skimba.tasks import TASKS, Task
from skimba.training.values import check_finite, checked, unknown_key

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AUGMENTATIONS = ("shift", "imagenet", "mirror", "crop", "jitter")
DECAYS = ("cosine", "linear", "steps")
SMOKE_FLOPS = 0.9  # of a narrow model, most of whose cost is not in its blocks
SMOKE_SIZES: dict[str, dict[str, Any]] = {
    CLASSIFIER: {"img_size": 64, "embed_dim": 32},
    "mask_rcnn": {"img_size": 64, "embed_dim": 48, "largest": (64, 64)},
    "upernet": {"img_size": 64, "embed_dim": 48, "largest": (64, 64)},
}


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of a training, besides the pictures.

    Attributes:
        model: a name of :func:`skimba.list_models`.
        kind: what is made of it: ``"classifier"``, ``"mask_rcnn"`` or ``"upernet"``.
        sizes: overrides of the model's sizes, for instance ``{"num_classes": 10, "drop_path_rate": 0.1}``.
        pretrained: start from the model's own weights; for ``mask_rcnn`` and ``upernet`` whose, for instance ``"imagenet"``.
        checkpoint: start from the weights in this file. A detector's or segmenter's layers of the classes start afresh where the
            pictures have another number of them.
        prune: arguments of :func:`skimba.prune` as plain data, for instance ``{"method": "hold", "schedule": {"flops": 0.6}}``:
            tokens are removed in training too.
        teacher: ``"dense"``: the unpruned model as it was at the start also teaches, by the Kullback-Leibler divergence
            of its answers times ``distillation`` (R-MeeTo, arXiv 2412.12496).
        batch_size: pictures for one step of the optimiser, over all processes.
        steps_per_epoch: an epoch is so many steps on pictures drawn anew; None: it shows each picture once.
        tested: so many of the test pictures are measured after each epoch, the first; None: all.
        micro_batch_size: pictures at once in a process; None: its whole share of the batch. It changes memory, not gradients.
        optimizer: one of timm's.
        learning_rate: the peak, after a linear warm-up.
        decay: how it falls from there: by a ``"cosine"`` or in a ``"linear"`` way to ``min_learning_rate``; or in ``"steps"``:
            to a tenth after each of the ``decay_epochs``.
        warmup_share: of all steps.
        clip_norm: largest norm of the gradient; 0: no clipping.
        ema_decay: of the moving average of the weights that is then evaluated and written; 0: none.
        augmentation: ``"shift"`` for small pictures of one thing; ``"imagenet"``: DeiT's, of which ``auto_augment``,
            ``color_jitter`` and ``erasing`` are the parts. For detection and segmentation ``"mirror"``: by chance; for detection
            ``"jitter"``, for segmentation ``"crop"``: at changed scales, a square part of ``crop_side`` pixels.
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
    kind: str = CLASSIFIER
    sizes: Mapping[str, Any] | None = None
    pretrained: bool | str = False
    checkpoint: str | None = None
    prune: Mapping[str, Any] | None = None
    teacher: str | None = None
    distillation: float = 0.5
    epochs: int = 5
    batch_size: int = 64
    steps_per_epoch: int | None = None
    tested: int | None = None
    micro_batch_size: int | None = None
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    min_learning_rate: float = 0.0
    decay: str = "cosine"
    decay_epochs: tuple[float, ...] = ()
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    label_smoothing: float = 0.05
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    augmentation: str = "shift"
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.3
    erasing: float = 0.25
    crop_side: int = 512
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
            value = checked(name, getattr(self, name), hints[name])
            check_finite(name, value)
            object.__setattr__(self, name, value)
        choices = {"dtype": DTYPES, "augmentation": AUGMENTATIONS, "decay": DECAYS, "kind": MAKERS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        self._check_start()
        for name in ("epochs", "batch_size", "steps_per_epoch", "tested", "micro_batch_size", "learning_rate", "repeats",
                     "crop_side"):  # fmt: skip
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

    def _check_start(self) -> None:
        """Raise unless what the model starts from goes together."""
        if self.teacher not in (None, "dense"):
            raise ValueError(f"teacher must be 'dense' or None, got {self.teacher!r}")
        if isinstance(self.pretrained, str) == (self.kind == CLASSIFIER) and self.pretrained:
            allowed = "true or false" if self.kind == CLASSIFIER else "the data set of the weights, such as 'imagenet'"
            raise ValueError(f"pretrained must be {allowed} for a {self.kind}, got {self.pretrained!r}")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("give pretrained = true or a checkpoint, not both")
        if self.teacher is not None and not (self.from_weights or self.smoke):
            raise ValueError(
                "a dense teacher needs a model that starts from weights: pretrained=True or checkpoint=PATH"
            )

    def task(self, model: TokenModel | DenseModel) -> Task:
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
        return bool(self.pretrained) or self.checkpoint is not None

    @property
    def has_head(self) -> bool:
        """Whether the weights that it starts from decide the classes: those of a backbone alone do not, nor does the checkpoint
        of a detector or segmenter."""
        if self.checkpoint is not None:
            return self.kind == CLASSIFIER
        return bool(self.pretrained) and self.pretrained != IMAGENET

    def as_smoke(self) -> Recipe:
        """The same on a narrow model with small images, a small batch and one epoch, from random weights."""
        sizes = {**(self.sizes or {}), **SMOKE_SIZES[self.kind]}
        pruning = None if self.prune is None else dict(self.prune)
        if pruning is not None and "flops" in (pruning.get("schedule") or {}):
            pruning["schedule"] = {**pruning["schedule"], "flops": SMOKE_FLOPS}
        return replace(
            self,
            smoke=True,
            prune=pruning,
            sizes=sizes,
            pretrained=False,
            checkpoint=None,
            epochs=1,
            batch_size=4,
            steps_per_epoch=None,
            micro_batch_size=None,
        )

    def dense_model(
        self, *, checkpoint: str | Path | None = None, weights: bool = True, **sizes: Any
    ) -> TokenModel | DenseModel:
        """The model before pruning.

        Args:
            checkpoint: weights that override the recipe's.
            weights: load weights at all.
            sizes: defaults for a model whose weights do not decide them.
        """
        path = checkpoint or self.checkpoint
        decided = self.has_head or checkpoint is not None
        model = make_model(
            self.kind,
            self.model,
            self.pretrained if weights and path is None else False,
            path if weights else None,
            **{**({} if decided else sizes), **(self.sizes or {})},
        )
        given = (("mean", self.mean), ("std", self.std), ("crop_pct", self.crop_share))
        set_input(model, {name: value for name, value in given if value is not None})
        return model
