"""In onnxruntime our kernels run on the session's threads: on no others, and with the same results on any number of them."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import skimba
from tests.export.conftest import ours

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

THREADS = Path("/proc/self/task")
needs_threads = pytest.mark.skipif(not THREADS.exists(), reason="the system does not list a process's threads")
BATCH, LENGTH, CHANNELS, STATES = 2, 300, 100, 16
SHAPES = {
    "u": (BATCH, LENGTH, CHANNELS),
    "delta": (BATCH, LENGTH, CHANNELS),
    "A": (CHANNELS, STATES),
    "B": (BATCH, LENGTH, STATES),
    "C": (BATCH, LENGTH, STATES),
    "D": (CHANNELS,),
    "delta_bias": (CHANNELS,),
}


@pytest.fixture(scope="module")
def operands():
    made = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    return {**made, "A": -made["A"].exp()}


@pytest.fixture(scope="module")
def scan_path(tmp_path_factory):
    """A file of one scan, so that nothing else has work for threads."""

    def value(name, shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    node = onnx.helper.make_node("SelectiveScan", list(SHAPES), ["y"], domain="skimba")
    values = [value(name, shape) for name, shape in SHAPES.items()]
    graph = onnx.helper.make_graph([node], "scan", values, [value("y", SHAPES["u"])])
    versions = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("skimba", 1)]
    path = tmp_path_factory.mktemp("scan") / "scan.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=versions, ir_version=8), path)
    return path


def session_of(path, threads):
    options = ours()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads take no time
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def running():
    return {thread.name for thread in THREADS.iterdir()}


def seconds(threads):
    """CPU time of some of the process's threads."""
    return sum(int((THREADS / thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_scan_is_the_same_on_any_number_of_threads(operands, scan_path, threads):
    session = session_of(scan_path, threads)
    (y,) = session.run(None, {name: x.numpy() for name, x in operands.items()})
    expected = skimba.ops.selective_scan(**operands, backend="cpu")
    np.testing.assert_array_equal(y, expected.numpy())


def test_logits_are_the_same_on_any_number_of_threads(onnx_path):
    images = torch.randn(3, 3, 24, 32).numpy()
    one, *more = (session_of(onnx_path, threads).run(["logits"], {"images": images})[0] for threads in (1, 2, 3))
    for logits in more:
        np.testing.assert_array_equal(logits, one)


@needs_threads
@pytest.mark.skipif(
    tuple(map(int, runtime.__version__.split(".")[:2])) < (1, 17), reason="this onnxruntime lends no threads"
)
def test_the_session_s_threads_have_a_part_in_a_scan(operands, scan_path):
    before = running()
    session = session_of(scan_path, 2)
    pool, inputs = running() - before, {name: x.numpy() for name, x in operands.items()}
    end = time.monotonic() + 20
    while (
        seconds(pool) < 0.01 and time.monotonic() < end
    ):  # a busy machine may give the second thread no core for a while
        session.run(None, inputs)
    assert seconds(pool) >= 0.01


RUNS_ALONE = """
import sys, os, numpy, onnxruntime
path, library = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(library)
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
before = len(os.listdir("/proc/self/task"))
session.run(None, {x.name: numpy.ones(x.shape, numpy.float32) for x in session.get_inputs()})
print(len(os.listdir("/proc/self/task")) - before)
"""


@needs_threads
def test_no_other_thread_is_started(scan_path, monkeypatch):
    ours()  # skips without the library
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    arguments = [sys.executable, "-c", RUNS_ALONE, str(scan_path), str(skimba.export.ort_library())]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr
