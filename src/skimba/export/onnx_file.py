"""ONNX files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from onnx import ModelProto, helper
from torch.export import ExportedProgram

from skimba.export.functions import DOMAIN, VERSION
from skimba.export.operators import Operators
from skimba.runtime.messages import plain

LARGEST = 2**31 - 1  # bytes of a protobuf
INPUT, OUTPUT = "images", "logits"


def to_onnx(program: ExportedProgram, metadata: dict[str, str], opset: int) -> bytes:
    """The program as one ONNX file, with skimba's operators as nodes and as functions.

    Raises:
        ValueError: an operation that ONNX does not have, or a model above 2 GB, which one file cannot hold.
    """
    operators = Operators()
    try:
        with _without_remarks():
            exported: Any = torch.onnx.export(
                program,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                custom_translation_table=operators.translations(),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"ONNX cannot hold this model: {plain(error.__cause__ or error)}") from error
    model: ModelProto = exported.model_proto
    _simplify(model)
    model.ir_version = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.functions.extend(function.proto(opset) for function in operators.used.values())
    if DOMAIN not in [imported.domain for imported in model.opset_import]:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    helper.set_model_props(model, metadata)
    if model.ByteSize() > LARGEST:
        raise ValueError(f"one ONNX file holds at most 2 GB, this model has {model.ByteSize() / 1e9:.1f}")
    return model.SerializeToString()


@contextmanager
def _without_remarks() -> Iterator[None]:
    """The exporter's libraries log what they do not optimise."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _simplify(model: ModelProto) -> None:
    """Leave out where in the Python code each node came from, and how shapes are called there."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.dim_param = "batch"
