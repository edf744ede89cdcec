"""The steps of a training, with logs and checkpoints between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skimba.data import Pictures
from skimba.data.loading import Rejected, load_batches
from skimba.runtime.processes import by_writer, gather
from skimba.store.publish import save_model
from skimba.tasks import Task, predict_all
from skimba.training.checkpoint import WEIGHTS, Data, save_state
from skimba.training.fitting import Fitting
from skimba.training.journal import LOG, STEPS, Journal, Pace

STEPS_PER_CHECKPOINT = 200
STEPS_PER_LINE = 50  # of STEPS
EVALUATION_BATCH = 100
TEST = "test_"  # before the names of figures in LOG


@dataclass(frozen=True)
class Progress:
    """Progress of a training, passed to its caller after each step."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Loop:
    """From the step that ``fitting`` has reached to the last."""

    fitting: Fitting
    task: Task
    journal: Journal
    train_set: Pictures
    test_set: Pictures
    data: Data
    workers: int
    strict: bool

    def run(self, on_step: Callable[[Progress], object]) -> list[Rejected]:
        """The remaining steps; returns the training pictures that could not be read in them, by all processes."""
        fitting, plan = self.fitting, self.fitting.plan
        if fitting.at_end_of_epoch and not by_writer(lambda: self.journal.tells_of(fitting.done)):
            self.end_epoch()  # a kill after the checkpoint prevented it
        reader, pace = self.task.training_reader(fitting.model), Pace()
        wanted = plan.micro_batches_from(fitting.done)
        batches = load_batches(self.train_set, reader, wanted, self.workers, self.strict)
        rejected: list[Rejected] = []
        for done in range(fitting.done + 1, plan.steps + 1):
            micro_batches = pace.take(batches, plan.micro_batches)
            rejected += [one for batch in micro_batches for one in batch.rejected]
            fitting.step(micro_batches)
            on_step(Progress(done, plan.steps, fitting.loss))
            if done % STEPS_PER_LINE == 0:
                self.journal.tell(STEPS, {"step": done, "loss": fitting.loss, **pace.read(), **fitting.rates()})
            if fitting.at_end_of_epoch or done % STEPS_PER_CHECKPOINT == 0:
                save_state(self.journal.folder, fitting.state(), fitting.recipe, self.data)
            if fitting.at_end_of_epoch:
                self.end_epoch()  # after the checkpoint: a test picture that cannot be read must not cost the epoch
        self.journal.close()
        return [one for part in gather(rejected) for one in part]

    def end_epoch(self) -> None:
        """Measure the model and log the figures."""
        fitting = self.fitting
        rows, _ = predict_all(self.task, fitting.result, self.test_set, EVALUATION_BATCH, self.workers, self.strict)
        figures = self.task.measure(rows, self.test_set)
        line = {"epoch": fitting.done // fitting.plan.steps_per_epoch, "step": fitting.done, "loss": fitting.loss}
        numbers = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
        self.journal.tell(LOG, {**line, **{TEST + name: value for name, value in numbers.items()}})

    def finish(self) -> dict[str, Any]:
        """Write the weights; the last epoch's figures."""
        line = self.journal.read(LOG)[-1]
        figures = {name: value for name, value in line.items() if name.startswith(TEST)}
        save_model(self.fitting.result, self.journal.folder / WEIGHTS, figures)
        return {name.removeprefix(TEST): value for name, value in figures.items()}
