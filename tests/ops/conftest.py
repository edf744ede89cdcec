"""Every test of the operators runs on a few threads, and fresh memory is NaN, so that nothing unwritten goes unseen."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with torch.device("cpu"):
        torch.empty(0)  # lets torch list its constructors (once) before one of them is replaced
    empty = torch.empty_like

    def nan_filled(*args, **kwargs):
        out = empty(*args, **kwargs)
        return out.fill_(float("nan")) if out.is_floating_point() and out.device.type == "cpu" else out

    monkeypatch.setattr("torch.empty_like", nan_filled)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
