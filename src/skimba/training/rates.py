"""The learning rate of each step: a linear warm-up, then one of the decays."""

from __future__ import annotations

from collections.abc import Callable

from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from skimba.training.plan import Plan
from skimba.training.recipe import Recipe

TENTH = 0.1  # of the rate goes on after each of the steps


def learning_rates(optimizer: Optimizer, recipe: Recipe, plan: Plan) -> Scheduler:
    """What sets the rates of the optimiser by its ``step_update``."""
    return DECAYS[recipe.decay](optimizer, recipe, plan, int(recipe.warmup_share * plan.steps))


def _cosine(optimizer: Optimizer, recipe: Recipe, plan: Plan, warmup: int) -> Scheduler:
    least = recipe.min_learning_rate
    return CosineLRScheduler(
        optimizer, plan.steps, lr_min=least, warmup_t=warmup, warmup_prefix=False, t_in_epochs=False
    )


def _linear(optimizer: Optimizer, recipe: Recipe, plan: Plan, warmup: int) -> Scheduler:
    """From the peak after the warm-up."""
    return PolyLRScheduler(
        optimizer,
        max(plan.steps - warmup, 1),
        power=1.0,
        lr_min=recipe.min_learning_rate,
        warmup_t=warmup,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def _steps(optimizer: Optimizer, recipe: Recipe, plan: Plan, warmup: int) -> Scheduler:
    after = [round(epoch * plan.steps_per_epoch) for epoch in recipe.decay_epochs]
    return MultiStepLRScheduler(
        optimizer, after, decay_rate=TENTH, warmup_t=warmup, warmup_prefix=False, t_in_epochs=False
    )


DECAYS: dict[str, Callable[[Optimizer, Recipe, Plan, int], Scheduler]] = {
    "cosine": _cosine,
    "linear": _linear,
    "steps": _steps,
}
