"""Writing down ONNX nodes as calls: ``y = nodes("Mul", a, b)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper, numpy_helper

Operand = str | int | float | Sequence[int]


@dataclass(frozen=True)
class Given:
    """An attribute that the function's caller gives, of a type of ONNX."""

    name: str
    kind: AttributeProto.AttributeType


class Nodes:
    """Nodes in the order in which they were called.

    Attributes:
        made: the nodes.
    """

    def __init__(self, prefix: str = "v") -> None:
        self.made: list[NodeProto] = []
        self._prefix = prefix
        self._constants: dict[tuple[Any, ...], str] = {}

    def __call__(self, operator: str, *inputs: Operand, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node.

        Args:
            inputs: names; or numbers, which become constants: an int or a float a scalar, a list int64 of one axis.
            outputs: how many.
            attributes: plain values, a graph, or :class:`Given`.

        Returns:
            The name of the output, or a tuple of names.
        """
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        made = tuple(f"{self._prefix}{len(self.made)}_{i}" for i in range(outputs))
        node = helper.make_node(operator, names, made)
        for name, value in attributes.items():
            if isinstance(value, Given):
                node.attribute.append(AttributeProto(name=name, type=value.kind, ref_attr_name=value.name))
            else:
                node.attribute.append(helper.make_attribute(name, value))
        self.made.append(node)
        return made[0] if outputs == 1 else made

    def rename(self, name: str, to: str) -> None:
        """Let the output of an earlier call have another name, as the result of a function."""
        self.made.append(helper.make_node("Identity", [name], [to]))

    def _constant(self, value: Any) -> str:
        array = np.asarray(value, dtype=np.float32 if isinstance(value, float) else np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self("Constant", value=numpy_helper.from_array(array))
        return self._constants[key]
