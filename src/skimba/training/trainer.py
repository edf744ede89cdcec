"""Fitting a model to pictures, resumably: killed at any moment and started again, it ends with the weights of an unbroken run.

Plain torch under ``torchrun``, since a wrapper such as Accelerate would own the loop and the loader that exact resumption needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from skimba.data import CHANNELS, Pictures, Selected
from skimba.data.loading import Rejected, load_batches
from skimba.data.transforms import Transform, imagenet_transform, shift_transform
from skimba.models import TokenModel, with_reducer
from skimba.pruning import prune
from skimba.runtime.processes import by_writer, gather, local_device
from skimba.store.publish import save_model
from skimba.tasks.predictions import predict_pictures, top_share
from skimba.training.checkpoint import WEIGHTS, load_state, save_state
from skimba.training.fitting import Fitting
from skimba.training.journal import LOG, STEPS, Journal, Pace, read_log
from skimba.training.plan import make_plan
from skimba.training.recipe import Recipe

STEPS_PER_CHECKPOINT = 200
STEPS_PER_LINE = 50  # of STEPS
EVALUATION_BATCH = 100


@dataclass(frozen=True)
class Progress:
    """Where a training is: told to its caller after each step."""

    step: int
    steps: int
    loss: float


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
        journal, pace = Journal(folder, first, tensorboard), Pace()
        rejected: list[Rejected] = []
        for done in range(first + 1, plan.steps + 1):
            micro_batches = pace.take(batches, plan.micro_batches)
            rejected += [one for batch in micro_batches for one in batch.rejected]
            loss = fitting.step(done - 1, micro_batches)
            if on_step is not None:
                on_step(Progress(done, plan.steps, loss))
            if done % STEPS_PER_LINE == 0:
                journal.tell(STEPS, {"step": done, "loss": loss, **pace.read(), **fitting.rates()})
            epoch, step_of_epoch = divmod(done, plan.steps_per_epoch)
            if step_of_epoch == 0:
                predictions, _ = predict_pictures(fitting.result, test_set, EVALUATION_BATCH, workers, strict)
                accuracy = top_share(predictions, 1)
                journal.tell(LOG, {"epoch": epoch, "step": done, "loss": loss, "test_accuracy": accuracy})
            if done % STEPS_PER_CHECKPOINT == 0 or step_of_epoch == 0:
                save_state(folder, fitting.state(done), recipe)
        journal.close()
    on_rejected([one for part in gather(rejected) for one in part])
    return by_writer(lambda: _finish(folder, fitting))


def _finish(folder: Path, fitting: Fitting) -> float:
    """Write the weights; the last epoch's accuracy."""
    accuracy = float(read_log(folder / LOG)[-1]["test_accuracy"])
    save_model(fitting.result, folder / WEIGHTS, {"test_accuracy": accuracy})
    return accuracy


def _student_and_teacher(
    recipe: Recipe, pictures: Pictures, device: torch.device
) -> tuple[TokenModel, TokenModel | None]:
    """The model to fit, pruned if the recipe says so, and the dense one that teaches it, if any."""
    dense = recipe.dense_model(in_chans=CHANNELS[pictures.mode], num_classes=len(pictures.classes)).to(device)
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
    channels = CHANNELS[train_set.mode]
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
