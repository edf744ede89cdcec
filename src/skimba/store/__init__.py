"""Creating models by name, recipe or file, and saving them."""

from skimba.store.create import create_model
from skimba.store.publish import load_model, push_model, save_model

__all__ = ["create_model", "load_model", "push_model", "save_model"]
