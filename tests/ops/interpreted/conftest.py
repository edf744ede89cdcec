"""Triton's kernels on CPU tensors, in its interpreter.

The interpreter is chosen when Triton is imported and then holds for the whole process, so these tests are collected only where
``TRITON_INTERPRET=1`` is set; ``tests/ops/test_triton.py`` runs them in a process of their own.
"""

import os
from types import SimpleNamespace

import pytest
import torch

from skimba.ops.backends import triton as backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and backend.UNAVAILABLE is None
collect_ignore_glob = [] if INTERPRETED else ["test_*.py"]


def patch_once():
    """The interpreter replaces Triton's language anew in every call of a function, which takes most of its time: replace it
    once for a whole kernel."""
    import triton.language as tl
    from triton.runtime import interpreter

    patch, done = interpreter._patch_lang, set()

    def patch_lang(function):
        known = frozenset(id(x) for x in function.__globals__.values() if x is tl or x is tl.core)
        if known in done:
            return SimpleNamespace(restore=lambda: None)
        scope, is_kernel = patch(function), not done
        done.add(known)
        restore = scope.restore
        if is_kernel:
            scope.restore = lambda: (done.clear(), restore())
        return scope

    interpreter._patch_lang = patch_lang


if INTERPRETED:
    backend.interpret()
    patch_once()


@pytest.fixture(autouse=True)
def fresh_memory_of_the_kernels_is_nan(monkeypatch):
    new_empty = torch.Tensor.new_empty

    def nan_filled(x, *args, **kwargs):
        out = new_empty(x, *args, **kwargs)
        return out.fill_(float("nan")) if out.is_floating_point() and out.device.type == "cpu" else out

    monkeypatch.setattr(torch.Tensor, "new_empty", nan_filled)


@pytest.fixture
def one_segment(monkeypatch):
    """As with a large batch: the scan is not cut."""
    change(monkeypatch, "scan", programs=0)


def change(monkeypatch, name, **changes):
    from dataclasses import replace

    from skimba.ops.backends.triton.tuning import CONFIGURATIONS

    monkeypatch.setitem(CONFIGURATIONS, name, replace(CONFIGURATIONS[name], **changes))
