"""Several processes on one job, started by ``torchrun``: rank, world size and collectives, all trivial for a single process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
PATIENCE = timedelta(
    hours=12
)  # one process may have hours of work left when the others are done; torchrun ends them if it dies


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes if torchrun started this one; leave them at the end."""
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 writes files and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(kind: str) -> torch.device:
    """``"cpu"``, ``"cuda"``: this process's own GPU, or another device by torch's name.

    Raises:
        ValueError: torch knows no such device, or there is no GPU.
    """
    try:
        found = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)
    except RuntimeError as error:
        raise ValueError(f"unknown device {kind!r}; known: cpu, cuda, cuda:1 and so on") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {kind!r} cannot be used: torch finds no CUDA device")
    return found


def moved(thing: Any, device: torch.device) -> Any:
    """The object with all its tensors, also in lists, tuples and dictionaries, on the device."""
    if isinstance(thing, torch.Tensor):
        return thing.to(device)
    if isinstance(thing, dict):
        return {key: moved(one, device) for key, one in thing.items()}
    return type(thing)(moved(one, device) for one in thing) if isinstance(thing, (list, tuple)) else thing


def all_sum(value: float) -> float:
    """The sum of all processes' values, in every process."""
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item()


def gather(thing: T) -> list[T]:
    """The objects of all processes, by rank, in every process."""
    if world_size() == 1:
        return [thing]
    things: list[T | None] = [None] * world_size()
    dist.all_gather_object(things, thing)
    return things  # type: ignore[return-value]


def by_writer(do: Callable[[], T]) -> T:
    """The result of ``do``, run in process 0, in every process. Its error is raised in all of them, so that none deadlocks."""
    if world_size() == 1:
        return do()
    said: list[tuple[T | None, Exception | None]] = [(None, None)]
    if rank() == 0:
        try:
            said = [(do(), None)]
        except Exception as error:  # raised in every process, including this one
            said = [(None, error)]
    dist.broadcast_object_list(said, src=0)
    result, failure = said[0]
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]
