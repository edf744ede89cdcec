"""Fitting models to pictures."""

from skimba.training.loop import Progress
from skimba.training.recipe import Recipe
from skimba.training.recipe_files import read_recipe
from skimba.training.trainer import train

__all__ = ["Progress", "Recipe", "read_recipe", "train"]
