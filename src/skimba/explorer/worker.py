"""One thread that computes for all visitors, in the order of asking."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import TypeVar

T = TypeVar("T")
MOST_WAITING = 12  # questions, the one being answered included
PATIENCE_S = 30.0


class BusyError(Exception):
    """Too many questions wait already, or one waited too long."""


class Worker:
    """Runs what it is asked, one thing at a time: a forward pass uses all cores as it is, and what only this thread touches
    needs no lock.

    Args:
        most_waiting: questions that may wait or be answered at once.
        patience_s: seconds until a question gives up.
    """

    def __init__(self, most_waiting: int = MOST_WAITING, patience_s: float = PATIENCE_S) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="skimba-explorer")
        self._most_waiting, self._patience_s = most_waiting, patience_s
        self._waiting, self._lock = 0, threading.Lock()

    @property
    def waiting(self) -> int:
        """Questions that wait or are being answered."""
        return self._waiting

    def ask(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns or raises, computed on the worker's thread.

        Raises:
            BusyError: too many questions wait, or this one waited longer than ``patience_s``.
        """
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise BusyError(f"{self._waiting} questions wait already; try again in a moment")
            self._waiting += 1
        answer: Future[T] = self._executor.submit(compute)
        try:
            return answer.result(self._patience_s)
        except Late:
            if answer.done():  # the computation raised it, or ended just now
                return answer.result()
            answer.cancel()
            raise BusyError(f"no answer within {self._patience_s:g} seconds; try again in a moment") from None
        finally:
            with self._lock:
                self._waiting -= 1

    def wait_for(self, compute: Callable[[], T]) -> T:
        """The same for what runs in the background: however long it takes, and not counted among the questions."""
        return self._executor.submit(compute).result()

    def close(self) -> None:
        """What waits is dropped; what runs is waited for."""
        self._executor.shutdown(cancel_futures=True)
