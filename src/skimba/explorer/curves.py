"""Accuracy against the share kept, measured in the background and cancellable."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from skimba.data import LabelledImages
from skimba.explorer.answers import cost
from skimba.explorer.catalogue import Opened
from skimba.explorer.sides import Side
from skimba.explorer.worker import BusyError, Worker
from skimba.models import TokenModel
from skimba.runtime.messages import plain

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
BATCH = 20  # images: an answer that is asked for meanwhile waits for one batch
MOST_RUNNING, MOST_KEPT = 2, 16


@dataclass
class Curve:
    """One measurement: a row for each side and share as it comes.

    Attributes:
        total, done: batches.
        rows: ``side`` (its place), ``share``, ``accuracy`` in 0 … 1, ``gflops`` exact.
        state: ``"running"``, ``"done"``, ``"cancelled"`` or ``"failed"``.
        reason: why it failed.
    """

    sides: list[Side]
    total: int
    images: int
    done: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    state: str = "running"
    reason: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def plain(self) -> dict[str, Any]:
        """For the page."""
        names = ("done", "total", "images", "state", "reason")
        return {**{name: getattr(self, name) for name in names}, "rows": list(self.rows)}


class Curves:
    """All measurements, at most MOST_RUNNING at a time. Each asks the worker batch by batch, so that answers come between."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._known: OrderedDict[int, Curve] = OrderedDict()
        self._lock, self._next = threading.Lock(), 1

    def start(self, opened: Opened, sides: list[Side], images: LabelledImages) -> int:
        """Its number.

        Raises:
            BusyError: as many run already as may.
        """
        batches = -(-len(images) // BATCH)
        curve = Curve(sides, len(sides) * len(SHARES) * batches, len(images))
        with self._lock:
            running = sum(one.state == "running" for one in self._known.values())
            if running >= MOST_RUNNING:
                raise BusyError(f"{running} measurements run already; wait for one or cancel it")
            number, self._next = self._next, self._next + 1
            self._known[number] = curve
            while len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        threading.Thread(target=self._run, args=(curve, opened, images), daemon=True).start()
        return number

    def find(self, number: int) -> Curve:
        """Raises ValueError for an unknown number."""
        with self._lock:
            if number not in self._known:
                raise ValueError(f"no measurement {number}")
            return self._known[number]

    def cancel_all(self) -> None:
        """At the end of the server."""
        with self._lock:
            for curve in self._known.values():
                curve.cancelled.set()

    def _run(self, curve: Curve, opened: Opened, images: LabelledImages) -> None:
        try:
            for place, side in enumerate(curve.sides):
                for share in SHARES:
                    self._measure(curve, place, replace(side, share=share, flops=None), opened, images)
                    if curve.cancelled.is_set():
                        curve.state = "cancelled"
                        return
            curve.state = "done"
        except Exception as error:  # a thread of its own: nobody else could say so
            curve.state, curve.reason = "failed", plain(error)

    def _measure(self, curve: Curve, place: int, side: Side, opened: Opened, images: LabelledImages) -> None:
        model = self._worker.wait_for(lambda: side.classifier(opened))
        right = 0
        for start in range(0, len(images), BATCH):
            if curve.cancelled.is_set():
                return
            batch = images[start : start + BATCH]
            right += self._worker.wait_for(partial(_right, model, batch))
            curve.done += 1
        gflops = self._worker.wait_for(lambda: cost(model)["exact"])
        curve.rows.append({"side": place, "share": side.share, "accuracy": right / len(images), "gflops": gflops})


def _right(model: TokenModel, batch: LabelledImages) -> int:
    with torch.inference_mode():
        return int((model(batch.normalised()).argmax(1) == batch.labels).sum())
