"""Fitting a model to pictures, resumably: killed at any moment and started again, it ends with the weights of an unbroken run.

Plain torch under ``torchrun``, since a wrapper such as Accelerate would own the loop and the loader that exact resumption needs.
A batch is cut into equal parts for the processes and, in each, into micro batches, and every
picture's loss is divided by the whole batch. So gradients do not depend on how many processes or micro batches there are.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skimba.data import Pictures, Selected
from skimba.data.loading import Batch, Rejected, Wanted, load_batches
from skimba.data.transforms import Transform, imagenet_transform, shift_transform
from skimba.distributed import all_sum, gather, local_device, rank, world_size
from skimba.models import TokenModel, with_reducer
from skimba.predictions import predict_pictures, top_share
from skimba.pruning import prune
from skimba.publish import save_model
from skimba.training.checkpoint import LOG, STEPS, WEIGHTS, add_to_log, load_state, read_log, save_state
from skimba.training.recipe import DTYPES, Recipe

STEPS_PER_CHECKPOINT = 200
STEPS_PER_LINE = 50  # of STEPS
EVALUATION_BATCH = 100
SMOKE_STEPS = 2


@dataclass(frozen=True)
class Progress:
    """Where a training is: told to its caller after each step."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Plan:
    """Which pictures make up which micro batch, from the recipe's seed alone."""

    pictures: int
    batch_size: int
    micro_batch_size: int
    epochs: int
    steps_per_epoch: int
    repeats: int
    seed: int

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def micro_batches(self) -> int:
        """Of a step, in a process."""
        return self.batch_size // (world_size() * self.micro_batch_size)

    def micro_batches_from(self, first: int) -> Iterator[list[Wanted]]:
        """This process's micro batches of all steps from ``first`` on."""
        share = self.batch_size // world_size()
        for epoch in range(first // self.steps_per_epoch, self.epochs):
            order = torch.randperm(self.pictures, generator=torch.Generator().manual_seed(self.chance(epoch)))
            order = order.repeat_interleave(self.repeats)
            for step in range(max(first, epoch * self.steps_per_epoch), (epoch + 1) * self.steps_per_epoch):
                begin = (step - epoch * self.steps_per_epoch) * self.batch_size + rank() * share
                for start in range(begin, begin + share, self.micro_batch_size):
                    places = range(start, start + self.micro_batch_size)
                    seeds = (self.chance(step) * 1_009 + place % self.batch_size for place in places)
                    yield [Wanted(int(order[place]), seed) for place, seed in zip(places, seeds, strict=True)]

    def chance(self, number: int) -> int:
        """The seed of a step, or of an epoch's order."""
        return self.seed * 1_000_003 + number


def train(
    recipe: Recipe,
    train_set: Pictures,
    test_set: Pictures,
    folder: str | Path,
    on_step: Callable[[Progress], None] | None = None,
    *,
    workers: int = 0,
    device: str = "cpu",
    strict: bool = False,
    tensorboard: bool = False,
    on_rejected: Callable[[list[Rejected]], object] = lambda rejected: None,
) -> float:
    """Fit a model, or go on where an interrupted training in the same folder stopped. Under torchrun every process calls it.

    Writes ``checkpoint.pt`` (every STEPS_PER_CHECKPOINT steps and after each epoch), ``log.jsonl`` (a line after each epoch),
    ``steps.jsonl`` (every STEPS_PER_LINE steps: loss, rates, gradients by layer) and at the end ``weights.safetensors`` with
    ``weights.json`` (:func:`skimba.save_model`), all in ``folder``. The last step's weights, or their moving average, are
    taken: the test pictures choose nothing.

    Args:
        workers: processes that decode pictures, for each process that trains.
        device: ``"cpu"`` or ``"cuda"`` (models run on the reference backend there).
        strict: stop at the first picture that cannot be read; otherwise another stands in for it.
        tensorboard: write ``folder/tensorboard`` too (needs ``skimba[tensorboard]``).
        on_rejected: called at the end with the training pictures that could not be read, by all processes.

    Returns:
        Accuracy on the test pictures after the last epoch, in 0 … 1.

    Raises:
        ValueError: the pictures do not fit the model, the folder holds a training by another recipe, or the loss became NaN.
        OSError: a file cannot be written; the last checkpoint is intact.
    """
    folder = Path(folder)
    plan = make_plan(recipe, train_set)
    if recipe.smoke:
        test_set = Selected(test_set, range(min(len(test_set), 2 * recipe.batch_size)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model, teacher = _student_and_teacher(recipe, train_set, local_device(device))
        _check_pictures(model, train_set, test_set)
        state = load_state(folder, recipe)
        fitting = Fitting(recipe, plan, model, teacher)
        if state is not None:
            fitting.load(state)
        first = 0 if state is None else int(state["step"])
        batches = load_batches(train_set, _transform(recipe, model), plan.micro_batches_from(first), workers, strict)
        board = _board(folder, first) if tensorboard and rank() == 0 else None
        rejected: list[Rejected] = []
        since, waited, pictures = time.perf_counter(), 0.0, 0
        for step in range(first, plan.steps):
            asked = time.perf_counter()
            micro_batches = [next(batches) for _ in range(plan.micro_batches)]
            waited += time.perf_counter() - asked
            pictures += recipe.batch_size
            rejected += [one for batch in micro_batches for one in batch.rejected]
            loss = fitting.step(step, micro_batches)
            done = step + 1
            if on_step is not None:
                on_step(Progress(done, plan.steps, loss))
            if rank() == 0 and done % STEPS_PER_LINE == 0:
                passed = time.perf_counter() - since
                line = {
                    "step": done,
                    "loss": loss,
                    "learning_rate": fitting.optimizer.param_groups[0]["lr"],
                    "pictures_per_s": pictures / passed,
                    "share_waiting_for_data": waited / passed,
                    **fitting.gradient_norms(),
                }
                add_to_log(folder / STEPS, line)
                if board is not None:
                    _show(board, line)
                since, waited, pictures = time.perf_counter(), 0.0, 0
            if done % plan.steps_per_epoch == 0:
                predictions, _ = predict_pictures(fitting.result, test_set, EVALUATION_BATCH, workers, strict)
                line = {"epoch": done // plan.steps_per_epoch, "step": done, "loss": loss}
                line["test_accuracy"] = top_share(predictions, 1)
                if rank() == 0:
                    add_to_log(folder / LOG, line)
                if board is not None:
                    _show(board, line)
            if done % STEPS_PER_CHECKPOINT == 0 or done % plan.steps_per_epoch == 0:
                save_state(folder, fitting.state(done), recipe)
    if board is not None:
        board.close()
    on_rejected([one for part in gather(rejected) for one in part])
    accuracy = float(read_log(folder / LOG)[-1]["test_accuracy"]) if rank() == 0 else 0.0
    if rank() == 0:
        save_model(fitting.result, folder / WEIGHTS, {"test_accuracy": accuracy})
    return gather(accuracy)[0]


class Fitting:
    """A model with all that a step changes."""

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        model: TokenModel,
        teacher: TokenModel | None = None,
    ) -> None:
        self.recipe, self.plan, self.model, self.teacher = recipe, plan, model, teacher
        self.optimizer = create_optimizer_v2(
            model, recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.average = ModelEmaV3(model, recipe.ema_decay) if recipe.ema_decay else None
        self.parallel: nn.Module = DistributedDataParallel(model) if world_size() > 1 else model
        self.device = next(model.parameters()).device
        self.schedule = CosineLRScheduler(
            self.optimizer,
            plan.steps,
            lr_min=recipe.min_learning_rate,
            warmup_t=int(recipe.warmup_share * plan.steps),
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self.mixup = (
            Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=model.num_classes)
            if recipe.mixup or recipe.cutmix
            else None
        )

    @property
    def result(self) -> TokenModel:
        """The model that is evaluated and written."""
        return self.model if self.average is None else self.average.module

    def state(self, done: int) -> dict[str, Any]:
        average = None if self.average is None else self.average.module.state_dict()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": average,
            "step": done,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up the state that :meth:`state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["ema"])

    def step(self, step: int, micro_batches: list[Batch]) -> float:
        """One step of the optimiser; the batch's loss."""
        torch.manual_seed(self.plan.chance(step) * world_size() + rank())  # drop path
        np.random.seed(self.plan.chance(step) % 2**32)  # mixup: its strength is the same in every process
        self.model.train()
        self.schedule.step_update(step)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with nullcontext() if last or self.parallel is self.model else self.parallel.no_sync():  # type: ignore[operator]
                loss = self._loss(batch) * len(batch.images) / self.recipe.batch_size
                (loss * world_size()).backward()  # gradients of several processes are averaged, not added
            total += loss.item()
        total = all_sum(total)
        if not np.isfinite(total):
            raise ValueError(f"loss {total} at step {step}: {self._what_to_look_at(micro_batches)}")
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return total

    def gradient_norms(self) -> dict[str, Any]:
        """Norm of the last step's (clipped) gradient, whole and for each layer."""
        squares: dict[str, float] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                layer = _layer_of(name)
                squares[layer] = squares.get(layer, 0.0) + parameter.grad.double().square().sum().item()
        return {
            "gradient_norm": sum(squares.values()) ** 0.5,
            "gradient_norms": {k: v**0.5 for k, v in squares.items()},
        }

    def _loss(self, batch: Batch) -> Tensor:
        """Mean over the micro batch."""
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)  # labels become (b num_classes), smoothed
        dtype = DTYPES[self.recipe.dtype]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.parallel(images).float()
        smoothing = self.recipe.label_smoothing if self.mixup is None else 0.0
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        if self.teacher is not None:
            loss = loss + self.recipe.distillation * _divergence(logits, self.teacher, images)
        return loss

    def _what_to_look_at(self, micro_batches: Iterable[Batch]) -> str:
        bad = next((n for n, p in self.model.named_parameters() if not p.isfinite().all()), None)
        if bad is not None:
            return f"the weights of {bad} are no longer finite; lower learning_rate (now {self.recipe.learning_rate})"
        if not all(batch.images.isfinite().all() for batch in micro_batches):
            return "the pictures are not finite; look at mean and std"
        return (
            f"weights and pictures are finite; lower learning_rate (now {self.recipe.learning_rate}) or clip_norm "
            f"(now {self.recipe.clip_norm}), or see whether dtype fp32 helps (now {self.recipe.dtype})"
        )


def make_plan(recipe: Recipe, train_set: Pictures) -> Plan:
    if recipe.batch_size % world_size():
        raise ValueError(f"batch_size {recipe.batch_size} cannot be shared by {world_size()} processes")
    share = recipe.batch_size // world_size()
    micro_batch_size = recipe.micro_batch_size or share
    if share % micro_batch_size:
        raise ValueError(
            f"a process's share of the batch, {share}, must be a multiple of micro_batch_size, got {micro_batch_size}"
        )
    if (recipe.mixup or recipe.cutmix) and micro_batch_size % 2:
        raise ValueError(f"mixup needs an even number of pictures at once, got micro_batch_size {micro_batch_size}")
    steps_per_epoch = len(train_set) // recipe.batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"batch_size {recipe.batch_size} is more than the {len(train_set)} training images")
    if recipe.smoke:
        steps_per_epoch = min(steps_per_epoch, SMOKE_STEPS)
    return Plan(
        len(train_set),
        recipe.batch_size,
        micro_batch_size,
        recipe.epochs,
        steps_per_epoch,
        recipe.repeats,
        recipe.seed,
    )


def _student_and_teacher(
    recipe: Recipe, pictures: Pictures, device: torch.device
) -> tuple[TokenModel, TokenModel | None]:
    """The model to fit, pruned if the recipe says so, and the dense one that teaches it, if any."""
    channels = 1 if pictures.mode == "L" else 3
    dense = recipe.dense_model(in_chans=channels, num_classes=len(pictures.classes)).to(device)
    student = dense if recipe.prune is None else prune(dense, **recipe.prune)
    teacher = None if recipe.teacher is None else copy.deepcopy(with_reducer(dense, None)).eval().requires_grad_(False)
    return student, teacher


def _check_pictures(model: TokenModel, train_set: Pictures, test_set: Pictures) -> None:
    """Raise before the first epoch if the pictures do not fit the model or each other."""
    if train_set.classes != test_set.classes:
        odd = sorted(set(train_set.classes) ^ set(test_set.classes))
        raise ValueError(
            f"training pictures have {len(train_set.classes)} classes, test pictures {len(test_set.classes)}"
            + (f"; in one only: {', '.join(odd[:3])}" if odd else "; in another order")
        )
    if len(train_set.classes) != model.num_classes:
        raise ValueError(
            f"the pictures have {len(train_set.classes)} classes, the model {model.num_classes}; "
            f"sizes.num_classes={len(train_set.classes)} gives it a fresh head"
        )
    channels = {"L": 1, "RGB": 3}[train_set.mode]
    if channels != model.in_chans:
        raise ValueError(f"the pictures have {channels} channels, the model takes {model.in_chans}")
    for pictures in (train_set, test_set):
        wrong = [i for i in range(len(pictures)) if not 0 <= pictures.label(i) < model.num_classes]
        if wrong:
            raise ValueError(
                f"{len(wrong)} pictures have no class of 0 … {model.num_classes - 1}, for instance {pictures.name(wrong[0])}"
            )


def _transform(recipe: Recipe, model: TokenModel) -> Transform:
    if recipe.augmentation == "shift":
        return shift_transform(model)
    return imagenet_transform(model, recipe.auto_augment, recipe.color_jitter, recipe.erasing)


def _divergence(logits: Tensor, teacher: TokenModel, images: Tensor) -> Tensor:
    """``KL(student || teacher)``, mean over the batch: R-MeeTo's direction."""
    with torch.no_grad():
        wanted = teacher(images).float().log_softmax(-1)
    return F.kl_div(wanted, logits.log_softmax(-1), reduction="batchmean", log_target=True)


def _layer_of(name: str) -> str:
    """``layers.3.mixer.D`` -> ``layers.3``; ``head.weight`` -> ``head``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]


def _board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("this needs tensorboard: pip install 'skimba[tensorboard]'") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first)


def _show(board: Any, line: dict[str, Any]) -> None:
    for name, value in line.items():
        values = value if isinstance(value, dict) else {"": value}
        for part, number in values.items():
            board.add_scalar(f"{name}/{part}" if part else name, number, line["step"])
