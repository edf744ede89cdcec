"""The inputs of an operator, declared once: its schema, checks and gradients are derived from their annotations."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INDEX = (torch.int32,)
FLAGS: dict[Any, str] = {bool: "bool", float: "float", list[int]: "int[]"}  # as a schema calls them


class Operand(NamedTuple):
    """The annotation of a tensor.

    Attributes:
        axes: the shapes that it may have, in axis letters. The first operand with a letter gives its size.
        dtypes: those that it may have.
        data: whether it is computed in the dtype of the data; all else is computed in float32.
        differentiable: whether gradients flow to it.
    """

    axes: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...] = FLOATING
    data: bool = False
    differentiable: bool = True


def data(*axes: str) -> Operand:
    return Operand(axes, data=True)


def parameter(*axes: str) -> Operand:
    return Operand(axes)


def count(*axes: str) -> Operand:
    return Operand(axes, differentiable=False)


def index(*axes: str) -> Operand:
    return Operand(axes, dtypes=INDEX, differentiable=False)


def int8(*axes: str) -> Operand:
    return Operand(axes, dtypes=(torch.int8,), differentiable=False)


class Field(NamedTuple):
    """An operand as :meth:`Signature.check` reads it; ``axes`` are the first of its ``shapes``, which are letters."""

    name: str
    axes: str
    dtypes: tuple[torch.dtype, ...]
    optional: bool
    shapes: tuple[tuple[str, ...], ...]


class Signature:
    """The annotations of a named tuple of inputs: tensors first, then flags.

    Attributes:
        inputs: the named tuple.
        operands: its tensors, by name.
        fields: the same, as they are checked.
        differentiable: places of those that gradients flow to.
        schema: all fields as arguments of a ``torch.library`` operator.
    """

    def __init__(self, inputs: type[Any]) -> None:
        self.inputs = inputs
        hints = get_type_hints(inputs, include_extras=True)
        tensors = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}
        self.operands = {name: operand for name, (_, operand) in tensors.items()}
        self.fields = tuple(
            Field(name, operand.axes[0], operand.dtypes, kind != Tensor, tuple(tuple(a.split()) for a in operand.axes))
            for name, (kind, operand) in tensors.items()
        )
        self.differentiable = tuple(i for i, operand in enumerate(self.operands.values()) if operand.differentiable)
        schema = [f"Tensor{'?' if field.optional else ''} {field.name}" for field in self.fields]
        schema += [f"{FLAGS[hint]} {name}" for name, hint in hints.items() if name not in tensors]
        self.schema = ", ".join(schema)

    def check(self, inputs: tuple[Any, ...]) -> None:
        """Raise unless the tensors fit each other. Their values are checked by the backends.

        Raises:
            TypeError: a required tensor is missing, something is not a tensor, or a wrong dtype.
            ValueError: a wrong shape or device, or an empty axis other than the batch ``b``.
        """
        sizes: dict[str, int] = {}
        known: dict[str, torch.Size] = {}  # axes that were met before
        device = None
        for (name, axes, dtypes, optional, shapes), x in zip(self.fields, inputs, strict=False):  # the flags follow
            if x is None and optional:
                continue
            if not isinstance(x, Tensor):
                raise TypeError(f"{name} must be a Tensor, got {'None' if x is None else type(x).__name__}")
            shape = x.shape
            if shape != known.get(axes):
                if not _fits(shapes[0], shape, sizes) and not any(_fits(other, shape, sizes) for other in shapes[1:]):
                    allowed = " or ".join(_written(letters, sizes) for letters in shapes)
                    raise ValueError(f"{name} must have shape {allowed}, got {tuple(shape)}")
                if 0 in shape:
                    _refuse_empty(name, shapes, shape)
                if len(shapes) == 1:
                    known[axes] = shape
            if x.dtype not in dtypes:
                allowed = (
                    "have a floating dtype" if dtypes is FLOATING else f"be {str(dtypes[0]).removeprefix('torch.')}"
                )
                raise TypeError(f"{name} must {allowed}, got {x.dtype}")
            if device is None:
                device = x.device
            elif x.device != device:
                raise ValueError(f"{name} must be on {device}, got {x.device}")


def _fits(letters: tuple[str, ...], shape: torch.Size, sizes: dict[str, int]) -> bool:
    """Whether the sizes of ``letters`` are those of ``shape``; letters met for the first time get theirs from it."""
    if len(letters) != len(shape):
        return False
    for letter, size in zip(letters, shape):  # noqa: B905, the lengths are equal and a keyword costs
        if letter not in sizes:
            sizes[letter] = size
        elif sizes[letter] != size:
            return False
    return True


def _refuse_empty(name: str, shapes: tuple[tuple[str, ...], ...], shape: torch.Size) -> None:
    letters = next(letters for letters in shapes if len(letters) == len(shape))
    if any(size == 0 and letter != "b" for letter, size in zip(letters, shape, strict=True)):
        axes = " ".join(letters)
        raise ValueError(f"{name} ({axes}) must have at least one element on every axis but b, got {tuple(shape)}")


def _written(letters: tuple[str, ...], sizes: dict[str, int]) -> str:
    """``(2, 9)`` where the sizes are known, ``(e n)`` where none is."""
    if not any(letter in sizes for letter in letters):
        return f"({' '.join(letters)})"
    inner = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
    return f"({inner},)" if len(letters) == 1 else f"({inner})"
