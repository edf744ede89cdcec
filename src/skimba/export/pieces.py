"""What several ONNX functions are made of: rows of tokens, and silu. Axis letters as in :mod:`skimba.export.functions`."""

from __future__ import annotations

from onnx import TensorProto

from skimba.export.nodes import Nodes


def flat_rows(nodes: Nodes, index: str, x: str) -> str:
    """``index (b k)`` or ``(1 k)`` into ``x (b l e)``, as numbers ``(b k)`` of the rows of the batch laid end to end."""
    images = nodes("Squeeze", nodes("Shape", x, start=0, end=1), [0])
    first = nodes("Mul", nodes("Range", 0, images, 1), nodes("Shape", x, start=1, end=2))
    return nodes("Add", nodes("Cast", index, to=TensorProto.INT64), nodes("Unsqueeze", first, [1]))


def flat_tokens(nodes: Nodes, x: str) -> str:
    """``(b l e)`` -> ``(b*l e)``."""
    return nodes("Reshape", x, nodes("Concat", [-1], nodes("Shape", x, start=-1), axis=0))


def take(nodes: Nodes, x: str, rows: str) -> str:
    """Those rows ``(b k)`` of ``x (b l e)``: ``(b k e)``."""
    return nodes("Gather", flat_tokens(nodes, x), rows, axis=0)


def put(nodes: Nodes, x: str, rows: str) -> str:
    """The inverse of :func:`take`, where all rows are named."""
    flat, index = flat_tokens(nodes, x), nodes("Reshape", rows, [-1, 1])
    there = nodes("ScatterND", nodes("ConstantOfShape", nodes("Shape", flat)), index, flat)
    return nodes("Reshape", there, nodes("Shape", x))


def silu(nodes: Nodes, x: str) -> str:
    return nodes("Mul", x, nodes("Sigmoid", x))
