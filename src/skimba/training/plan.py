"""Which pictures make up which step of a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from skimba.data import Pictures
from skimba.data.loading import Wanted
from skimba.runtime.processes import rank, world_size
from skimba.training.recipe import Recipe

SMOKE_STEPS = 2


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
    whole = len(train_set) // recipe.batch_size
    if whole == 0:
        raise ValueError(f"batch_size {recipe.batch_size} is more than the {len(train_set)} training images")
    steps_per_epoch = recipe.steps_per_epoch or whole
    if steps_per_epoch > whole:
        raise ValueError(f"steps_per_epoch must be at most {whole}, so many batches are there, got {steps_per_epoch}")
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
