"""Several real processes on this machine, talking by gloo: under torchrun, or forked with what torchrun tells them."""

import io
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
import torch
from safetensors.torch import load_file

from skimba.cli import main
from skimba.store import create_model
from skimba.store.publish import save_model
from skimba.tasks import ClassPrediction
from skimba.tasks.tables import read_rows
from skimba.training.checkpoint import CHECKPOINT, WEIGHTS
from skimba.training.journal import LOG, read_log
from tests.data.scene_tree import corrupt, write_tree
from tests.processes import ranks, skimba

SIZES = ["sizes.depth=2", "epochs=1", "batch_size=16"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = write_tree(tmp_path_factory.mktemp("tree"), train=40, test=21)
    corrupt(root / "val", 2)
    return root


def command(processes, *arguments, nodes=()):
    launcher = [sys.executable, "-m", "torch.distributed.run", *(nodes or ("--standalone",))]
    return [*launcher, "--nproc-per-node", str(processes), "-m", "skimba", *map(str, arguments)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(processes, *arguments):
    """Standard output of the command; one process is this one, several are its forks."""
    if processes == 1:
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
            patch.setattr(sys, "argv", ["skimba", *map(str, arguments)])
            with pytest.raises(SystemExit) as left:
                main()
        assert left.value.code == 0
        return shown.getvalue()
    forks = ranks(processes, skimba, *arguments)
    assert [fork.returncode for fork in forks] == [0] * processes, [fork.stderr for fork in forks]
    return "".join(fork.stdout for fork in forks)


def torchrun(processes, *arguments):
    """What the command under torchrun, each process a fresh interpreter, wrote to standard output."""
    result = subprocess.run(
        command(processes, *arguments), env=environment(), capture_output=True, text=True, timeout=110
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_close(first, second):
    first, second = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=5e-5, rtol=1e-3, msg=name)


def assert_same_predictions(first, second):
    """The order and the classes are equal; probabilities to rounding, which depends on the pictures of a batch."""
    first, second = read_rows(first, ClassPrediction), read_rows(second, ClassPrediction)
    for one, other in zip(first, second, strict=True):
        assert (one.index, one.name, one.label, one.classes) == (other.index, other.name, other.label, other.classes)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_two_processes_train_as_one(tree, tmp_path):
    shown = {}
    for processes, start in ((1, run), (2, torchrun)):
        out = tmp_path / str(processes)
        options = ["--data", tree, "--out", out, "--workers", 0]
        shown[processes] = start(processes, "train", "vim_micro_patch4_56", *SIZES, *options)
    assert_close(tmp_path / "1", tmp_path / "2")
    assert shown[2].count("of 19 test images") == 1, "one process speaks"
    first, second = (read_log(tmp_path / n / LOG) for n in ("1", "2"))
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], rel=1e-4)
    assert first[0]["test_top1"] == second[0]["test_top1"]
    state = torch.load(tmp_path / "2" / CHECKPOINT, weights_only=True)
    assert not any(name.startswith("module.") for name in state["model"])


@pytest.mark.slow
def test_two_nodes_meet_on_loopback(tree, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = tmp_path / "one"
    options = ["--data", tree, "--workers", 0]
    run(1, "train", "vim_micro_patch4_56", *SIZES, *options, "--out", one)
    nodes = []
    for rank in (0, 1):
        where = ["--nnodes", "2", "--node-rank", str(rank), "--master-addr", "127.0.0.1", "--master-port", str(port)]
        # Only node 0 writes; the other's folder stays without files, as where nodes share no disk.
        call = command(
            1, "train", "vim_micro_patch4_56", *SIZES, *options, "--out", tmp_path / f"node{rank}", nodes=where
        )
        nodes.append(
            subprocess.Popen(call, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    outputs = [node.communicate(timeout=110) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert_close(one, tmp_path / "node0")
    assert not (tmp_path / "node1" / WEIGHTS).exists()


def test_two_processes_evaluate_every_picture_once(tree, tmp_path):
    weights = tmp_path / "model.safetensors"
    save_model(create_model("vim_micro_patch4_56", pretrained=True), weights)
    found = {}
    for processes in (1, 2):
        table = tmp_path / f"{processes}.csv"
        options = [
            "--data",
            tree,
            "--prune",
            "hold",
            "--workers",
            0,
            "--batch-size",
            4,
            "--predictions",
            table,
            "--json",
        ]
        found[processes] = json.loads(run(processes, "eval", weights, *options))
        found[processes].pop("images_per_s")
    assert found[1] == found[2]
    assert (found[1]["images"], found[1]["rejected"]) == (19, 2)
    assert_same_predictions(tmp_path / "1.csv", tmp_path / "2.csv")


@pytest.mark.slow  # evaluation, below its table, is the same loop
def test_two_processes_predict_as_one(tree, tmp_path):
    for processes in (1, 2):
        run(processes, "predict", "vim_micro_patch4_56", tree, "--out", tmp_path / f"{processes}.csv", "--workers", 0)
    assert_same_predictions(tmp_path / "1.csv", tmp_path / "2.csv")
    assert len(read_rows(tmp_path / "1.csv", ClassPrediction)) == 59
    assert len((tmp_path / "2.csv.rejects.csv").read_text().splitlines()) == 3


def test_an_error_of_the_writer_ends_all_processes(tree, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    forks = ranks(2, skimba, "train", "vim_micro_patch4_56", *SIZES, "--data", tree, "--out", tmp_path, "--workers", 0)
    for fork in forks:
        assert fork.returncode == 2
        assert len(re.findall(r"skimba: \S+checkpoint\.pt is no plain weights file", fork.stderr)) == 1
