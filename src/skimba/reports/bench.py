"""Timing in turns: the cases alternate, round after round, so that ratios hold on a machine whose speed drifts.

Besides the models it times their floors, in the same rounds: only the matrix products of a model's forward pass, and only
its scans, with the same shapes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skimba.cost.flops import count_flops
from skimba.cost.timing import speedup, take_turns
from skimba.models import list_models
from skimba.ops import default_backend
from skimba.pruning import METHODS, prune
from skimba.quantization import quantize
from skimba.runtime.processes import local_device
from skimba.store import create_model
from skimba.tokens import NONE

# The dtype of the data, and what becomes of a model of ours. "int8": products in 8-bit integers, the rest as it is.
DTYPES: dict[str, tuple[torch.dtype, Callable[[Any], Any] | None]] = {
    "fp32": (torch.float32, None),
    "bf16": (torch.bfloat16, None),
    "int8": (torch.float32, quantize),
    "int8+bf16": (torch.bfloat16, quantize),
}
# How a model is pruned, by name. "condensed" removes the same tokens as "top", without an alignment; "hold, none" as "hold".
PRUNED: dict[str, dict[str, Any]] = {
    "top": {"method": "top"},
    "condensed": {"method": "condensed"},
    "hold": {"method": "hold"},
    "hold, none": {"method": replace(METHODS["hold"], align=NONE)},
}
FLOORS = ("matrix products", "scans")
REFERENCE = "dense, reference backend"
COMPILED = ", compiled"  # "dense, compiled", "top, compiled" …: the same by torch.compile, for this very shape
# Dense convolutions (a stem, patches) are matrix products too; the mixers' depthwise ones are operators of our own.
MATRIX_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    torch.ops.skimba.int8_linear.default,
}


@dataclass(frozen=True)
class Timing:
    """One line of the table.

    Attributes:
        case: as given to :func:`bench`.
        time_ms: for one image, median over the rounds.
        spread_ms: distance between the quartiles.
        speedup: over the dense model of the same dtype, batch and size, median over the rounds; None where there is none.
        exact_gflops: for one image; None for what is not a skimba model.
    """

    model: str
    case: str
    dtype: str
    batch: int
    img_size: int
    time_ms: float
    spread_ms: float
    speedup: float | None
    exact_gflops: float | None


@dataclass(frozen=True)
class _Case:
    name: str
    run: Callable[[], object]
    exact_gflops: float | None = None


def bench(
    names: list[str],
    cases: list[str],
    dtypes: list[str],
    batches: list[int],
    img_sizes: list[int | None],
    rounds: int,
    on_round: Callable[[], None] | None = None,
    pruned: Mapping[str, Mapping[str, Any]] = PRUNED,
    device: str = "cpu",
) -> list[Timing]:
    """Time models.

    Args:
        names: skimba models, or any other that timm knows (timed dense).
        cases: any of ``"dense"``, the keys of ``pruned``, either with :data:`COMPILED` after it, :data:`FLOORS` and
            :data:`REFERENCE`.
        dtypes: keys of :data:`DTYPES`; what a model of timm cannot have is left out.
        batches: images at a time.
        img_sizes: sides of the images in pixels; None for the model's own.
        rounds: how often each case runs, after one round to warm up.
        on_round: called after each round of one group of cases, for a progress bar.
        pruned: arguments of :func:`skimba.prune`, by the name of the case.
        device: where models and images are, ``"cpu"`` or ``"cuda"``; a time ends when the device has finished.

    Raises:
        ValueError: an unknown name, case or dtype, less than one round, or a device that is not there.
    """
    models = ("dense", *pruned)
    for what, given, known in (
        ("case", cases, (*models, *(case + COMPILED for case in models), *FLOORS, REFERENCE)),
        ("dtype", dtypes, DTYPES),
        ("model", names, (*list_models(), *timm.list_models())),
    ):
        if unknown := [x for x in given if x not in known]:
            shown = ", ".join(known) if len(known) < 20 else "skimba's and timm's"
            raise ValueError(f"unknown {what} {unknown[0]!r}; known: {shown}")
    if rounds < 1 or min(batches) < 1:
        raise ValueError(f"needs at least one round and one image, got {rounds} and {min(batches)}")
    local_device(device)  # raises where there is none
    found = []
    for batch in batches:
        for img_size in img_sizes:
            groups = {
                (name, dtype): _cases(name, cases, pruned, dtype, batch, img_size, device)
                for dtype in dtypes
                for name in names
            }
            runs = {(*key, case.name): _whole(case.run, device) for key, (_, group) in groups.items() for case in group}
            if any(case.endswith(COMPILED) for case in cases):
                torch.compiler.reset()
            # torch compiles no more than eight models of one class unless told.
            with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=max(8, len(runs))):
                times = take_turns(runs, rounds, on_round=on_round)
            for key, (size, group) in groups.items():
                dense = times.get((*key, "dense"))
                found += [_timing(*key, case, batch, size, times[(*key, case.name)], dense) for case in group]
    return found


def _whole(run: Callable[[], object], device: str) -> Callable[[], object]:
    """With all that it leaves to the GPU."""

    def run_and_wait() -> None:
        run()
        torch.cuda.synchronize()

    return run_and_wait if device == "cuda" else run


def _cases(
    name: str,
    cases: list[str],
    pruned: Mapping[str, Mapping[str, Any]],
    dtype: str,
    batch: int,
    img_size: int | None,
    device: str,
) -> tuple[int, list[_Case]]:
    """What to run for one model; the side of its images."""
    ours = name in list_models()
    model, size = _our_model(name, img_size) if ours else _other_model(name, img_size)
    data, change = DTYPES[dtype]
    model = model.eval().to(data)
    found: list[_Case] = []
    if change is not None and not ours:
        return size, found
    model = (model if change is None else change(model)).to(device)
    images = torch.randn(batch, *(model.input_shape(size) if ours else (3, size, size)), dtype=data, device=device)
    for case in cases:
        plain = case.removesuffix(COMPILED)
        if plain == "dense" or (ours and plain in pruned):
            run = model if plain == "dense" else prune(model, **pruned[plain])
            gflops = count_flops(run, convention="exact").total / 1e9 if ours else None
            if plain != case:
                run = torch.compile(run, fullgraph=True, dynamic=False)
            found.append(_Case(case, partial(run, images), gflops))
        elif ours and case == REFERENCE:
            found.append(_Case(case, lambda: _on_reference(model, images)))
        elif case in FLOORS and (ours or case == "matrix products"):
            wanted = MATRIX_PRODUCTS if case == "matrix products" else {torch.ops.skimba.selective_scan.default}
            found.append(_Case(case, _replay(model, images, wanted)))
    return size, found


def _our_model(name: str, img_size: int | None) -> tuple[Any, int]:
    """The model and the side of its images."""
    sizes: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    model = create_model(name, **sizes)
    return model, model.img_size[0]


def _other_model(name: str, img_size: int | None) -> tuple[Any, int]:
    """The same for a model of timm, of which convolutional ones take images of any size without being told."""
    config = timm.get_pretrained_cfg(name)
    fixed = config is not None and config.fixed_input_size
    size = img_size or (224 if config is None else config.input_size[-1])
    sizes: dict[str, Any] = {"img_size": size} if fixed else {}
    return timm.create_model(name, **sizes), size


def _on_reference(model: nn.Module, images: Tensor) -> Tensor:
    with default_backend("reference"):
        return model(images)


class _Recorder(TorchDispatchMode):
    """Keeps which of the wanted operators are called, and with what shapes."""

    def __init__(self, wanted: set[Any]) -> None:
        super().__init__()
        self.wanted, self.calls = wanted, list[tuple[Any, list[Any]]]()
        self.buffers: dict[tuple[Any, ...], Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.wanted:
            self.calls.append((func, [self._stand_in(a) if isinstance(a, Tensor) else a for a in args]))
        return func(*args, **(kwargs or {}))

    def _stand_in(self, x: Tensor) -> Tensor:
        """A tensor of the same layout; calls of a kind share theirs, which can only make the floor lower."""
        key = (tuple(x.shape), x.stride(), x.dtype)
        if key not in self.buffers:
            with torch.utils._python_dispatch._disable_current_modes():
                copy = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
                self.buffers[key] = copy.copy_(x.detach())
        return self.buffers[key]


def _replay(model: nn.Module, images: Tensor, wanted: set[Any]) -> Callable[[], object]:
    with torch.no_grad(), _Recorder(wanted) as recorder:
        model(images)

    def run() -> None:
        for func, args in recorder.calls:
            func(*args)

    return run


def _timing(
    name: str, dtype: str, case: _Case, batch: int, img_size: int, times: list[float], dense: list[float] | None
) -> Timing:
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return Timing(
        model=name,
        case=case.name,
        dtype=dtype,
        batch=batch,
        img_size=img_size,
        time_ms=1e3 * statistics.median(times) / batch,
        spread_ms=1e3 * (quartiles[2] - quartiles[0]) / batch,
        speedup=None if dense is None else speedup(dense, times),
        exact_gflops=case.exact_gflops,
    )
