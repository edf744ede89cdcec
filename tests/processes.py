"""Processes that have the library loaded: forked from one that imports it once, so that a test pays for its own work only."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

HELPER = r"""
import json, os, sys, traceback

import timm
import skimba.cli._commands, skimba.tasks.resumable, skimba.training.loop


def run(job):
    null = os.open(os.devnull, os.O_RDONLY)
    for number, path in enumerate((None, job["out"], job["err"])):
        os.dup2(null if path is None else os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["skimba", *job["arguments"]]
    code = 0
    try:
        exec(compile(job["code"], "process", "exec"), {"__name__": "__main__"})
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


for line in sys.stdin:
    job = json.loads(line)
    if "code" in job:
        answer = os.fork() or run(job)
    else:
        pid, status = os.waitpid(job["pid"], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    print(json.dumps(answer), flush=True)
"""
COMMAND = "from skimba.cli import main; main()"


class Process:
    """As subprocess.Popen, as far as tests need it."""

    def __init__(self, ask, folder, code, arguments):
        self._ask, self._out, self._err = ask, folder / "out", folder / "err"
        self.returncode = None
        self.pid = ask(code=code, arguments=[*map(str, arguments)], out=str(self._out), err=str(self._err))

    def poll(self):
        if self.returncode is None:
            self.returncode = self._ask(pid=self.pid)
        return self.returncode

    def wait(self, timeout=100):
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} runs after {timeout} s")
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    @property
    def stdout(self):
        return self._out.read_text() if self._out.exists() else ""

    @property
    def stderr(self):
        return self._err.read_text() if self._err.exists() else ""


class Processes:
    """Where they start: Python code with arguments, or skimba's command line."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        self._helper = subprocess.Popen(
            [sys.executable, "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *raised):
        self._helper.communicate()
        self._folder.cleanup()

    def start(self, code, *arguments):
        return Process(self._ask, Path(tempfile.mkdtemp(dir=self._folder.name)), code, arguments)

    def run(self, code, *arguments, timeout=100):
        """How it ended and what it said."""
        process = self.start(code, *arguments)
        process.wait(timeout)
        return SimpleNamespace(returncode=process.returncode, stdout=process.stdout, stderr=process.stderr)

    def _ask(self, **job):
        self._helper.stdin.write(json.dumps(job) + "\n")
        self._helper.stdin.flush()
        return json.loads(self._helper.stdout.readline())
