"""Whether a model's classes are those of a data set, and what they are called."""

from __future__ import annotations

from skimba.data import CHANNELS, Pictures
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.models import TokenModel


def check_classes(model: TokenModel | DenseModel, pictures: Pictures) -> None:
    """Raise ValueError unless the model has the classes and the channels of these pictures."""
    count, tokens = len(pictures.classes), tokens_of(model)
    if count != model.num_classes:
        raise ValueError(
            f"the pictures have {count} classes, the model {model.num_classes}; "
            f"sizes.num_classes={count} gives it a fresh head"
        )
    channels = CHANNELS[pictures.mode]
    if channels != tokens.in_chans:
        raise ValueError(f"the pictures have {channels} channels, the model takes {tokens.in_chans}")
    known = tokens.pretrained_cfg.get("label_names") or pictures.classes
    if not all(name.isdigit() for name in pictures.classes):  # numbers stand for any names
        odd = next(((mine, its) for mine, its in zip(known, pictures.classes, strict=True) if mine != its), None)
        if odd is not None:
            raise ValueError(f"the pictures' classes are not the model's: {odd[1]!r} stands where it has {odd[0]!r}")


def names_of_classes(model: TokenModel | DenseModel, pictures: Pictures) -> tuple[str, ...]:
    """By class number: those that the model's weights came with, or the data set's; none where neither has as many."""
    for names in (tokens_of(model).pretrained_cfg.get("label_names") or (), pictures.classes):
        if len(names) == model.num_classes:
            return tuple(names)
    return ()
