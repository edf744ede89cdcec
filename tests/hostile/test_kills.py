"""Processes killed wherever they touch the disk: what they began must be finished by the next, as if nothing had happened.

A helper process, itself a fork of this one, forks a child for each kill. The child dies (SIGKILL) before the n-th call that
opens a file for writing, renames, removes, makes or changes something in its folder, which Python's audit hooks report; or
(SIGXFSZ) in the middle of the write that makes a file longer than so many bytes. Then another child runs to the end.
"""

import json
import sys

import pytest

from tests.processes import forked

HELPER = r'''
import json, os, resource, shutil, signal, sys
from pathlib import Path

import torch

from skimba.data import embedded_test_images
from skimba.store import create_model
from skimba.tasks import CLASSIFICATION, resumable
from skimba.training import Recipe, loop, train

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}
job, root, first, every, most = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
images = embedded_test_images()[:16]
torch.set_num_threads(1)
resumable.CHUNK, loop.STEPS_PER_CHECKPOINT = 4, 1


def predict(folder):
    folder.mkdir(exist_ok=True)
    resumable.predict_files(CLASSIFICATION, model, images, folder / "a.csv", 4)


def fit(folder):
    train(Recipe("vim_micro", sizes={"depth": 1}, epochs=2, batch_size=8, ema_decay=0.5), images, images[:8], folder)


def result(folder):
    """All that is left, but for the lock and the checkpoint, which names no result."""
    files = sorted(path for path in folder.rglob("*") if path.name not in ("lock", "checkpoint.pt"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def child(folder, at=None, size=None):
    """How a run in a process of its own ends; ``at``: killed before that event, ``size``: at that byte of a file."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seen = 0

    def hook(event, args):
        nonlocal seen
        writes = event == "open" and isinstance(args[2], int) and args[2] & WRITES
        if (writes or event in EVENTS) and str(args[0]).startswith(str(root)):
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        if at is not None:
            sys.addaudithook(hook)
        if size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        RUN[job](folder)
        os._exit(0)
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        os._exit(1)


RUN = {"predict": predict, "train": fit}
model = create_model("vim_micro", depth=1)
assert child(root / "whole") == 0
whole = result(root / "whole")
longest = max(path.stat().st_size for path in (root / "whole").rglob("*"))
kills, faults = 0, []
cases = [{"at": at} for at in range(first, most, every)] + [{"size": size} for size in range(first - 1, longest, longest // 5)]
for case in cases:
    folder = root / "broken"
    shutil.rmtree(folder, ignore_errors=True)
    left = child(folder, **case)
    if left == 0 and "at" in case:
        continue  # it has fewer events
    kills += left in (-signal.SIGKILL, -signal.SIGXFSZ)
    again = child(folder)
    if left > 0 or again or result(folder) != whole:
        faults.append([case, left, again])
print(json.dumps({"kills": kills, "faults": faults}))
'''


def helper(*arguments):
    sys.argv = ["helper", *map(str, arguments)]
    exec(HELPER, {"__name__": "__main__"})


def killed(job, folder, first, every, most):
    done = forked(helper, job, folder, first, every, most, timeout=3000)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["faults"], (found["faults"], done.stderr)
    print(job, found)
    return found["kills"]


@pytest.mark.parametrize("job", ["predict", "train"])
def test_a_job_killed_at_some_of_its_writes_is_finished_by_the_next(job, tmp_path):
    assert killed(job, tmp_path, 2, 9, 80) >= 8


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("job", ["predict", "train"])
def test_a_job_killed_at_any_of_its_writes_is_finished_by_the_next(job, tmp_path):
    assert killed(job, tmp_path, 1, 1, 200) >= 40
