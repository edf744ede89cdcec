"""Other processes without the seconds in which a fresh interpreter loads torch: forks of this one.

A fork runs with one thread and leaves without clean-up, so nothing of pytest runs in it. What only a fresh interpreter can show
(``python -m skimba``, torchrun, what an import loads) is tested in one.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from skimba.cli import main


class Fork:
    """A process that calls a function; ``stdout``, ``stderr`` and ``returncode`` as of ``subprocess.Popen``.

    As a context it is killed, if it still runs, at the end.
    """

    def __init__(
        self, function: Callable[..., object], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        self.returncode: int | None = None
        self._written = [b"", b""]
        ends = [os.pipe() for _ in self._written]
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process may have threads
            self.pid = os.fork()
        if self.pid == 0:
            run_and_leave([end for _, end in ends], function, arguments, environment or {})
        for _, end in ends:
            os.close(end)
        self._read = [end for end, _ in ends]
        for end in self._read:
            os.set_blocking(end, False)

    def poll(self) -> int | None:
        """The exit code, the negative signal that ended it, or None while it runs."""
        if self.returncode is not None:
            return self.returncode
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        self._drain()
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
            for end in self._read:
                os.close(end)
        return self.returncode

    def wait(self, timeout: float = 100.0) -> int:
        """The same at its end. Raises TimeoutError, after a kill, if it is not there within so many seconds."""
        self.wait_until(lambda: self.poll() is not None, timeout)
        assert self.returncode is not None
        return self.returncode

    def wait_until(self, what: Callable[[], bool], timeout: float = 100.0) -> None:
        """Until something has happened; raises and kills as ``wait`` does."""
        end = time.monotonic() + timeout
        while not what():
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"nothing happened for {timeout} s; written: {self.stdout!r}, {self.stderr!r}")
            time.sleep(0.002)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it if it still runs, and wait for its end."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            while self.poll() is None:
                time.sleep(0.002)

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def stdout(self) -> str:
        return self._so_far(0)

    @property
    def stderr(self) -> str:
        return self._so_far(1)

    def _so_far(self, which: int) -> str:
        self.poll()
        return self._written[which].decode()

    def _drain(self) -> None:
        for which, end in enumerate(self._read):
            try:
                while more := os.read(end, 65536):
                    self._written[which] += more
            except BlockingIOError:
                pass  # that is all for now


def run_and_leave(
    outputs: list[int], function: Callable[..., object], arguments: tuple[Any, ...], environment: Mapping[str, str]
) -> None:
    """The life of a fork."""
    code = 1
    try:
        for number, output in enumerate(outputs, 1):
            os.dup2(output, number)
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb", 0), write_through=True) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        torch.set_num_threads(1)
        function(*arguments)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def skimba(*arguments: object) -> None:
    """The command line, in a process of its own."""
    sys.argv = ["skimba", *map(str, arguments)]
    main()


def forked(function: Callable[..., object], *arguments: Any, timeout: float = 100.0) -> Fork:
    """The function's process at its end."""
    process = Fork(function, *arguments)
    process.wait(timeout)
    return process


def ranks(processes: int, function: Callable[..., object], *arguments: Any, timeout: float = 100.0) -> list[Fork]:
    """So many processes at their end, with what torchrun tells each of them: its rank and where they meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    told = [{**where, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    forks = [Fork(function, *arguments, environment=environment) for environment in told]
    try:
        for fork in forks:
            fork.wait(timeout)
    finally:
        for fork in forks:
            fork.kill()
    return forks
