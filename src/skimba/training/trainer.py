"""Fitting a model to pictures, resumably: a run killed at any moment and restarted ends with the weights of an uninterrupted one.

Plain torch under ``torchrun``, since a wrapper such as Accelerate would own the loop and the loader that exact resumption needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from skimba.data import CHANNELS, Pictures, select
from skimba.data.loading import TRIES, Rejected, Wanted, load_batches
from skimba.dense import DenseModel
from skimba.dense.model import with_inner_reducer
from skimba.models import TokenModel
from skimba.pruning import prune, read_settings
from skimba.runtime.locks import sole_writer
from skimba.runtime.processes import by_writer, local_device
from skimba.store.create import set_input
from skimba.tasks import Task
from skimba.training.checkpoint import data_of, load_state
from skimba.training.fitting import Fitting
from skimba.training.journal import Journal
from skimba.training.loop import Loop, Progress
from skimba.training.plan import make_plan
from skimba.training.recipe import Recipe


def train(
    recipe: Recipe,
    train_set: Pictures,
    test_set: Pictures,
    folder: str | Path,
    on_step: Callable[[Progress], object] = lambda progress: None,
    *,
    workers: int = 0,
    device: str = "cpu",
    strict: bool = False,
    tensorboard: bool = False,
    on_rejected: Callable[[list[Rejected]], object] = lambda rejected: None,
) -> dict[str, Any]:
    """Fit a model, or resume an interrupted training in the same folder. Under torchrun every process calls it.

    Writes ``checkpoint.pt`` (every STEPS_PER_CHECKPOINT steps and after each epoch), ``log.jsonl`` (a line after each epoch),
    ``steps.jsonl`` (every STEPS_PER_LINE steps: loss, rates, gradients by layer) and at the end ``weights.safetensors`` with
    ``weights.json`` (:func:`skimba.save_model`), all in ``folder``. The last step's weights, or their moving average, are
    kept: nothing is chosen on the test pictures.

    Args:
        workers: processes that decode pictures, for each process that trains.
        device: ``"cpu"`` or ``"cuda"`` (models run on the reference backend there).
        strict: stop at the first picture that cannot be read; otherwise another replaces it.
        tensorboard: write ``folder/tensorboard`` too (needs ``skimba[tensorboard]``).
        on_rejected: called at the end with the training pictures that could not be read, by all processes.

    Returns:
        The task's figures (:meth:`skimba.tasks.Task.measure`) on the test pictures after the last epoch.

    Raises:
        ValueError: the pictures do not fit the model or none can be read, the folder holds a training by another recipe or on
            other pictures, or the loss became NaN.
        OSError: a file cannot be written, the last checkpoint being intact; or another process is training in the folder.
    """
    folder = Path(folder)
    plan = make_plan(recipe, train_set)
    tested = 2 * recipe.batch_size if recipe.smoke else recipe.tested or len(test_set)
    if tested < len(test_set):
        test_set = select(test_set, range(tested))
    with ExitStack() as held, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model, teacher = _student_and_teacher(recipe, train_set, local_device(device))
        task = recipe.task(model)
        _check_pictures(task, model, train_set, test_set)
        by_writer(lambda: held.enter_context(sole_writer(folder)) and None)
        data = data_of(training=train_set, test=test_set)
        fitting = Fitting(recipe, plan, model, task.criterion(model, teacher))
        if (state := load_state(folder, recipe, data)) is not None:
            fitting.load(state)
        loop = Loop(
            fitting, task, Journal(folder, fitting.done, tensorboard), train_set, test_set, data, workers, strict
        )
        on_rejected(loop.run(on_step))
        return by_writer(loop.finish)


def _student_and_teacher(
    recipe: Recipe, pictures: Pictures, device: torch.device
) -> tuple[TokenModel | DenseModel, TokenModel | DenseModel | None]:
    """The model to fit, pruned if the recipe says so, and the dense one that teaches it, if any."""
    dense = recipe.dense_model(in_chans=CHANNELS[pictures.mode], num_classes=len(pictures.classes)).to(device)
    set_input(dense, {"label_names": pictures.classes})
    student = dense if recipe.prune is None else prune(dense, **read_settings(recipe.prune))
    teacher = (
        None if recipe.teacher is None else copy.deepcopy(with_inner_reducer(dense, None)).eval().requires_grad_(False)
    )
    return student, teacher


def _check_pictures(task: Task, model: TokenModel | DenseModel, train_set: Pictures, test_set: Pictures) -> None:
    """Raise before the first epoch if the pictures do not fit the model or each other, or none to test on can be read."""
    if train_set.classes != test_set.classes:
        odd = sorted(set(train_set.classes) ^ set(test_set.classes))
        raise ValueError(
            f"training pictures have {len(train_set.classes)} classes, test pictures {len(test_set.classes)}"
            + (f"; in one only: {', '.join(odd[:3])}" if odd else "; in another order")
        )
    for pictures in (train_set, test_set):
        task.check(model, pictures)
        task.check_targets(pictures)
    readings = (load_batches(test_set, task.reader(model), [[Wanted(i)]], 0) for i in range(min(TRIES, len(test_set))))
    if not any(len(batch.indices) for reading in readings for batch in reading):
        raise ValueError("none of the test pictures can be read, for instance " + test_set.name(0))
