"""Fitting a model to images, resumably: killed at any moment and started again, it ends with the weights of an unbroken run."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor

from skimba.data import LabelledImages
from skimba.evaluate import accuracy, predict
from skimba.models import TokenModel, create_model, with_reducer
from skimba.models._checkpoint import read_plain_data
from skimba.pruning import prune

CHECKPOINT, LOG, WEIGHTS = "checkpoint.pt", "log.jsonl", "weights.safetensors"
STEPS_PER_CHECKPOINT = 200
EVALUATION_BATCH = 100
SHIFT = 1  # largest random shift of a training image, in pixels
MAX_GRAD_NORM = 1.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of a training, besides the images.

    Attributes:
        pretrained: start from the model's own weights.
        prune: arguments of :func:`skimba.prune`, for instance ``{"preset": "hold"}``: tokens are removed in training too.
        teacher: ``"dense"``: the unpruned model as it was at the start also teaches, by the Kullback-Leibler divergence
            of its answers times ``distillation`` (R-MeeTo, arXiv 2412.12496).
        dtype: ``"fp32"``, or ``"bf16"`` for autocast to bfloat16.
    """

    model: str
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    label_smoothing: float = 0.05
    seed: int = 0
    pretrained: bool = False
    prune: Mapping[str, Any] | None = None
    teacher: str | None = None
    distillation: float = 0.5
    dtype: str = "fp32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.teacher not in (None, "dense"):
            raise ValueError(f"teacher must be 'dense' or None, got {self.teacher!r}")
        if self.teacher is not None and not self.pretrained:
            raise ValueError("a dense teacher needs a model that starts from its own weights: pretrained=True")
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_share", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "distillation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class Progress:
    """Where a training is: told to its caller after each step."""

    step: int
    steps: int
    loss: float


def train(
    recipe: Recipe,
    train_set: LabelledImages,
    test_set: LabelledImages,
    folder: str | Path,
    on_step: Callable[[Progress], None] | None = None,
) -> float:
    """Fit a model, or go on where an interrupted training in the same folder stopped.

    Writes ``checkpoint.pt`` (atomically, every STEPS_PER_CHECKPOINT steps and after each epoch), ``log.jsonl`` (a line after each
    epoch) and at the end ``weights.safetensors``, all in ``folder``. The last step's weights are taken: the test images
    choose nothing.

    Returns:
        Accuracy on the test images after the last epoch, in 0 … 1.

    Raises:
        ValueError: the folder holds a training by another recipe, or the loss became NaN.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps_per_epoch = len(train_set) // recipe.batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"batch_size {recipe.batch_size} is more than the {len(train_set)} training images")
    steps = steps_per_epoch * recipe.epochs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model, teacher = _student_and_teacher(recipe, train_set)
        optimizer = create_optimizer_v2(model, "adamw", lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = CosineLRScheduler(
            optimizer, steps, warmup_t=int(recipe.warmup_share * steps), warmup_prefix=False, t_in_epochs=False
        )
        first = _resume(folder, recipe, model, optimizer)
        model.train()
        for step, batch in _batches(train_set, recipe, steps_per_epoch, first):
            torch.manual_seed(_step_seed(recipe.seed, step))  # augmentation and drop path depend on the step alone
            schedule.step_update(step)
            inputs = replace(batch, pixels=augment(batch.pixels)).normalised()
            with torch.autocast("cpu", DTYPES[recipe.dtype], enabled=recipe.dtype != "fp32"):
                logits = model(inputs).float()
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
            if teacher is not None:
                loss = loss + recipe.distillation * _divergence(logits, teacher, inputs)
            if not torch.isfinite(loss):
                raise ValueError(f"loss {loss.item()} at step {step}: lower learning_rate (now {recipe.learning_rate})")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            done = step + 1
            if on_step is not None:
                on_step(Progress(done, steps, loss.item()))
            if done % steps_per_epoch == 0:
                found = accuracy(*predict(model, test_set.batches(EVALUATION_BATCH)))
                line = {"epoch": done // steps_per_epoch, "step": done, "loss": loss.item(), "test_accuracy": found}
                with (folder / LOG).open("a") as log:
                    log.write(json.dumps(line) + "\n")
            if done % STEPS_PER_CHECKPOINT == 0 or done % steps_per_epoch == 0:
                _save(folder, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, recipe)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    _write_atomically(folder / WEIGHTS, lambda path: save_file(weights, path))
    return _last_accuracy(folder)


def _student_and_teacher(recipe: Recipe, images: LabelledImages) -> tuple[TokenModel, TokenModel | None]:
    """The model to fit, pruned if the recipe says so, and the dense one that teaches it, if any."""
    sizes: dict[str, Any] = (
        {} if recipe.pretrained else {"in_chans": images.pixels.shape[1], "num_classes": len(images.classes)}
    )
    dense = create_model(recipe.model, pretrained=recipe.pretrained, **sizes)
    student = dense if recipe.prune is None else prune(dense, **recipe.prune)
    teacher = None if recipe.teacher is None else copy.deepcopy(with_reducer(dense, None)).eval().requires_grad_(False)
    return student, teacher


def _divergence(logits: Tensor, teacher: TokenModel, inputs: Tensor) -> Tensor:
    """``KL(student || teacher)``, mean over the batch: R-MeeTo's direction."""
    with torch.no_grad():
        wanted = teacher(inputs).log_softmax(-1)
    return F.kl_div(wanted, logits.log_softmax(-1), reduction="batchmean", log_target=True)


def augment(pixels: Tensor) -> Tensor:
    """Each image shifted by up to SHIFT pixels (black comes in) and mirrored by chance: ``(b c height width)``, any dtype."""
    batch, _, height, width = pixels.shape
    padded = F.pad(pixels, (SHIFT,) * 4)
    row = torch.randint(2 * SHIFT + 1, (batch, 1, 1)) + torch.arange(height)[:, None]
    column = torch.randint(2 * SHIFT + 1, (batch, 1, 1)) + torch.arange(width)
    column = torch.where(torch.rand(batch, 1, 1) < 0.5, column, column.flip(-1))
    image = torch.arange(batch)[:, None, None]
    return padded.movedim(1, -1)[image, row, column].movedim(-1, 1)


def _step_seed(seed: int, step: int) -> int:
    return seed * 1_000_003 + step


def _batches(
    images: LabelledImages, recipe: Recipe, steps_per_epoch: int, first: int
) -> Iterator[tuple[int, LabelledImages]]:
    """Step numbers from ``first`` on with their batches; each epoch in an order that seed and epoch alone decide."""
    for epoch in range(first // steps_per_epoch, recipe.epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_step_seed(recipe.seed, epoch)))
        for step in range(max(first, epoch * steps_per_epoch), (epoch + 1) * steps_per_epoch):
            start = (step - epoch * steps_per_epoch) * recipe.batch_size
            yield step, images[order[start : start + recipe.batch_size]]


def _save(folder: Path, state: dict[str, Any], recipe: Recipe) -> None:
    content = {**state, "recipe": asdict(recipe)}
    _write_atomically(folder / CHECKPOINT, lambda path: torch.save(content, path))


def _resume(folder: Path, recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the folder's checkpoint, if there is one; the step to go on with."""
    path = folder / CHECKPOINT
    if not path.exists():
        (folder / LOG).unlink(missing_ok=True)
        return 0
    state = read_plain_data(path)
    if not isinstance(state, dict) or not {"model", "optimizer", "step", "recipe"} <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of this trainer; choose another folder")
    if state["recipe"] != asdict(recipe):
        there = state["recipe"]
        changed = [f"{k}: {there.get(k)} there, {v} asked for" for k, v in asdict(recipe).items() if there.get(k) != v]
        raise ValueError(f"{folder} holds a training by another recipe ({'; '.join(changed)}); choose another folder")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    # An epoch's line is written before its checkpoint: one that a kill left without is written again.
    lines = [line for line in _log(folder) if line["step"] <= state["step"]]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    _write_atomically(folder / LOG, lambda path: Path(path).write_text(text))
    return int(state["step"])


def _log(folder: Path) -> list[dict[str, Any]]:
    path = folder / LOG
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _last_accuracy(folder: Path) -> float:
    return float(_log(folder)[-1]["test_accuracy"])


def _write_atomically(path: Path, write: Callable[[str], object]) -> None:
    """Write a file so that after a crash at any moment either the old or the new content is there, whole."""
    partial = path.with_name(path.name + ".partial")  # of one name, so that kills leave no litter
    write(str(partial))
    with open(partial, "rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)
