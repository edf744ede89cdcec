"""Bytes that the scan forward moves: counted load by load in the interpreter, and from that for the sizes of models."""

import pytest
import torch

from skimba.ops import selective_scan
from skimba.ops.backends.triton.tuning import CONFIGURATIONS
from tests.ops.scan_inputs import scan_inputs

DATA = ("u", "delta", "B", "C", "z")
TIMES = ("gap", "step", "hold", "missing", "order")


def expected_bytes(batch, length, channels, states, size, times=0, tile=None):
    """What moves through the caches: every tile of channels reads B, C, and what passes in time, of its sample; A, D and
    delta_bias are read for every sample. Without ``tile`` the least that is possible: everything once."""
    tiles = 1 if tile is None else -(-channels // tile)
    samples = 1 if tile is None else batch
    rows = 4 * batch * length * channels * size  # u, delta, z and the output
    shared = tiles * batch * length * (2 * states * size + 4 * times)
    return rows + shared + samples * 4 * channels * (states + 2)


@pytest.fixture
def moved(monkeypatch):
    """The bytes of all loads and stores, without those that a mask leaves out."""
    from triton.runtime.interpreter import _get_np_dtype, interpreter_builder

    total = [0]
    load, store = type(interpreter_builder).create_masked_load, type(interpreter_builder).create_masked_store

    def counted_load(builder, pointers, mask, *rest):
        total[0] += int(mask.data.sum()) * _get_np_dtype(pointers.get_element_ty()).itemsize
        return load(builder, pointers, mask, *rest)

    def counted_store(builder, pointers, value, mask, *rest):
        total[0] += int(mask.data.sum()) * _get_np_dtype(pointers.get_element_ty()).itemsize
        return store(builder, pointers, value, mask, *rest)

    monkeypatch.setattr(type(interpreter_builder), "create_masked_load", counted_load)
    monkeypatch.setattr(type(interpreter_builder), "create_masked_store", counted_store)
    return total


@pytest.mark.parametrize("without", [TIMES, ("gap", "missing", "order", "step")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_scan_moves_what_its_programs_need_and_no_more(one_segment, moved, dtype, without):
    inputs = {k: x.to(dtype) if k in DATA else x for k, x in scan_inputs(3, 130, 4, without=without).items()}
    selective_scan(**inputs, backend="triton")
    tile = CONFIGURATIONS["scan"].channels
    times = 5 - len(without)
    assert moved[0] == expected_bytes(2, 3, 130, 4, dtype.itemsize, times, tile)


@pytest.mark.parametrize("size", [2, 4], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("channels", [384, 768, 1536], ids=["tiny", "small", "base"])
@pytest.mark.parametrize("times", [0, 5], ids=["dense", "every option"])
def test_at_the_sizes_of_models_it_moves_at_most_1_3_times_the_least(times, channels, size):
    """At 197 tokens and a batch from which on the scan is not cut into segments."""
    chosen = CONFIGURATIONS["scan"]
    batch = -(-chosen.programs // (channels // chosen.channels))
    needed = expected_bytes(batch, 197, channels, 16, size, times, chosen.channels)
    assert needed <= 1.3 * expected_bytes(batch, 197, channels, 16, size, times)
