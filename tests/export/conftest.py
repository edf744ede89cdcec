"""Exports cost seconds: tests share them."""

from dataclasses import replace

import pytest
import torch

import skimba
from tests.conftest import TINY, randomise

METHODS = {
    "dense": None,
    "hold": skimba.METHODS["hold"],
    "top": skimba.METHODS["top"],
    "hold_first_order": replace(skimba.METHODS["hold"], align=skimba.tokens.HOLD_FIRST_ORDER),
}


def stock():
    return pytest.importorskip("onnxruntime").SessionOptions()


def ours():
    options = stock()
    try:
        options.register_custom_ops_library(str(skimba.export.ort_library()))
    except RuntimeError as error:
        pytest.skip(str(error))
    return options


KERNELS = {"functions": stock, "ours": ours}  # what runs skimba's operators in onnxruntime


def tiny(family, way, **sizes):
    torch.manual_seed(0)
    model = randomise(TINY[family](**sizes))
    return model if METHODS[way] is None else skimba.prune(model, METHODS[way], {1: 0.5})


@pytest.fixture(scope="session")
def small():
    """A small pruned model: a stable sort, time that passes between tokens, convolutions over missing ones."""
    return tiny("vim", "top", depth=2)


@pytest.fixture(scope="session")
def onnx_path(small, tmp_path_factory):
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert skimba.export(small, path) == path
    return path
