"""A model with its optimiser: one step on a batch, and the state to resume from.

A batch is cut into equal parts for the processes and, in each, into micro batches, and every picture's loss is divided by the
whole batch. So gradients do not depend on how many processes or micro batches there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skimba.data.loading import Batch
from skimba.dense import DenseModel
from skimba.models import TokenModel
from skimba.runtime.processes import all_sum, moved, rank, world_size
from skimba.tasks import Criterion
from skimba.training.plan import Plan
from skimba.training.rates import learning_rates
from skimba.training.recipe import DTYPES, Recipe


class Fitting:
    """A model with all that a step changes.

    Attributes:
        done: steps taken.
        loss: of the last one's batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        model: TokenModel | DenseModel,
        criterion: Criterion,
    ) -> None:
        self.recipe, self.plan, self.model, self.criterion = recipe, plan, model, criterion
        self.done, self.loss = 0, 0.0
        self.optimizer = create_optimizer_v2(
            model, recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.average = ModelEmaV3(model, recipe.ema_decay) if recipe.ema_decay else None
        self.device = next(model.parameters()).device
        self.parallel: nn.Module = _parallel(model, self.device)
        self.schedule = learning_rates(self.optimizer, recipe, plan)

    @property
    def result(self) -> TokenModel | DenseModel:
        """The model that is evaluated and written."""
        return self.model if self.average is None else self.average.module

    @property
    def at_end_of_epoch(self) -> bool:
        return self.done > 0 and self.done % self.plan.steps_per_epoch == 0

    def state(self) -> dict[str, Any]:
        """What :meth:`load` needs."""
        average = None if self.average is None else self.average.module.state_dict()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": average,
            "step": self.done,
            "loss": self.loss,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state` returned.

        Raises:
            ValueError: it belongs to another model, optimiser or plan.
        """
        if not 0 < state["step"] <= self.plan.steps:
            raise ValueError(f"the checkpoint is of step {state['step']}, the training has {self.plan.steps}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["ema"])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"the checkpoint does not fit this model and optimiser ({error})") from error
        self.done, self.loss = state["step"], state["loss"]

    def step(self, micro_batches: list[Batch]) -> None:
        """One step of the optimiser.

        Raises:
            ValueError: the loss is not finite, or pictures are missing from the batch.
        """
        step = self.done
        for batch in micro_batches:
            if len(batch.indices) < batch.asked:
                raise ValueError(f"too many training pictures cannot be read, for instance {batch.rejected[0].reason}")
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
        self.done, self.loss = step + 1, total

    def rates(self) -> dict[str, Any]:
        """Learning rate, and norm of the last step's (clipped) gradient, whole and for each layer."""
        squares: dict[str, float] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                layer = _layer_of(name)
                squares[layer] = squares.get(layer, 0.0) + parameter.grad.double().square().sum().item()
        return {
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": sum(squares.values()) ** 0.5,
            "gradient_norms": {k: v**0.5 for k, v in squares.items()},
        }

    def _loss(self, batch: Batch) -> Tensor:
        """Mean over the micro batch."""
        return self.criterion(self._forward, moved(batch.images, self.device), moved(batch.targets, self.device))

    def _forward(self, *inputs: Any) -> Any:
        dtype = DTYPES[self.recipe.dtype]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            return self.parallel(*inputs)

    def _what_to_look_at(self, micro_batches: Iterable[Batch]) -> str:
        bad = next((n for n, p in self.model.named_parameters() if not p.isfinite().all()), None)
        if bad is not None:
            return f"the weights of {bad} are no longer finite; lower learning_rate (now {self.recipe.learning_rate})"
        if not all(image.isfinite().all() for batch in micro_batches for image in batch.images):
            return "the pictures are not finite; check mean and std"
        return (
            f"weights and pictures are finite; lower learning_rate (now {self.recipe.learning_rate}) or clip_norm "
            f"(now {self.recipe.clip_norm}), or see whether dtype fp32 helps (now {self.recipe.dtype})"
        )


def _parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model over all processes. On CUDA its BatchNorms see the whole batch; torch has no such layer for the CPU, where each
    process's see its own share."""
    if world_size() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model)


def _layer_of(name: str) -> str:
    """``layers.3.mixer.D`` -> ``layers.3``; ``head.weight`` -> ``head``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]
