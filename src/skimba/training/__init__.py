"""Fitting models to pictures."""

from skimba.training.loop import Progress
from skimba.training.recipe import Recipe, read_recipe
from skimba.training.trainer import train

__all__ = ["Progress", "Recipe", "read_recipe", "train"]
