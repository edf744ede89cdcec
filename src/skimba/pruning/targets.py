"""Targets for a pruned model, as values in place of a schedule: a share of FLOPs, a speed-up, a time.

Of a detector or segmenter they are targets of the backbone, its stem and blocks, at the picture size of the task: the only part
that pruning makes cheaper, so that one number means the same under every head. ``count_flops`` tells what it is of the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from skimba.models import TokenModel, with_reducer
from skimba.pruning.calibration import (
    Goal,
    Measured,
    Search,
    calibrate,
    measure,
    schedule_for_speed,
)
from skimba.pruning.method import Method
from skimba.pruning.schedule import Schedule, read_stages, stage_blocks

LEAST_SHARE = 0.05  # the smallest that a target may ask a stage to keep
Stages = str | tuple[int, ...]


@dataclass(frozen=True)
class Target(ABC):
    """A schedule that is found on the model: the same share of the tokens at every stage."""

    @abstractmethod
    def find(self, search: Search, method: Method) -> tuple[Schedule, Measured]:
        """The schedule, and what it comes to.

        Raises:
            OutOfReachError: the method cannot remove as much.
        """

    def plain(self) -> dict[str, Any]:
        """As JSON and TOML hold it.

        Raises:
            ValueError: it holds images.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if any(isinstance(value, Tensor) for value in values.values()):
            raise ValueError("a target with images cannot be written down; the schedule that it finds can")
        first, *others = values.items()
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in others}
        return {NAMES[type(self)]: first[1], **{name: value for name, value in plain.items() if value is not None}}


@dataclass(frozen=True)
class Flops(Target):
    """A share of the dense model's exact FLOPs (:func:`skimba.count_flops`), or just below.

    Attributes:
        share: in (0, 1).
        images: ``(b c height width)``, of clips ``(b c t height width)``, normalised, a few hundred, no labels: the stages are
            chosen on them, for the least change of the model's logits, or of its restored feature maps where it has no head of
            its own (a detector, a segmenter, ``num_classes=0``; some ten large pictures will do); for a method with ``counts``
            FLOPs are counted on them.
        stages: after which blocks, instead of the method's own; not where images choose them.
    """

    share: float
    images: Tensor | None = field(default=None, compare=False, repr=False)
    stages: Stages | None = None

    def __post_init__(self) -> None:
        _check_number(self.share, "Flops takes a share of the dense model's FLOPs in (0, 1)", 0, 1)
        _check_common(self)

    def find(self, search: Search, method: Method) -> tuple[Schedule, Measured]:
        search, stages = _prepare(search, method, self.images, self.stages, self.share)
        schedule = search.at(stages, self.share)
        return schedule, Measured(search.flops_share(schedule))


@dataclass(frozen=True)
class Speedup(Target):
    """This many times as fast as the dense model, within 5 %, measured on this machine while nothing else runs.

    Attributes:
        times: above 1.
        batch_size: images at a time: small batches gain less.
        images, stages: as in :class:`Flops`; the speed is measured on images of that size.
    """

    times: float
    batch_size: int = 8
    images: Tensor | None = field(default=None, compare=False, repr=False)
    stages: Stages | None = None

    def __post_init__(self) -> None:
        _check_number(self.times, "Speedup takes a number above 1", 1, float("inf"))
        _check_common(self)

    def find(self, search: Search, method: Method) -> tuple[Schedule, Measured]:
        goal = Goal(
            f"speed-up {self.times}",
            self.times,
            lambda timed: (timed.speedup or 0) / self.times,
            lambda timed: f"{timed.speedup:.2f}",
        )
        return _timed(
            search, method, self.images, self.stages, goal, _batch(search.model, self.batch_size, self.images)
        )


@dataclass(frozen=True)
class Milliseconds(Target):
    """The time of one batch, within 5 %, measured on this machine while nothing else runs.

    Attributes:
        time_ms: of a batch of ``batch_size`` images.
        batch_size: images at a time.
        images, stages: as in :class:`Speedup`.
    """

    time_ms: float
    batch_size: int = 1
    images: Tensor | None = field(default=None, compare=False, repr=False)
    stages: Stages | None = None

    def __post_init__(self) -> None:
        _check_number(self.time_ms, "Milliseconds takes a time above 0", 0, float("inf"))
        _check_common(self)

    def find(self, search: Search, method: Method) -> tuple[Schedule, Measured]:
        batch, dense = _batch(search.model, self.batch_size, self.images), with_reducer(search.model, None)
        now_ms = measure(dense, dense, batch).time_ms
        assert now_ms is not None
        if now_ms <= self.time_ms:
            raise ValueError(f"the dense model takes {now_ms:.3g} ms already, asked for {self.time_ms} ms")
        goal = Goal(
            f"{self.time_ms} ms",
            now_ms / self.time_ms,
            lambda timed: self.time_ms / (timed.time_ms or float("inf")),
            lambda timed: f"{timed.time_ms:.3g} ms",
        )
        return _timed(search, method, self.images, self.stages, goal, batch)


def read_target(plain: Mapping[str, Any]) -> Target | None:
    """The target that a table with ``flops``, ``speedup`` or ``milliseconds`` means; None for a table of blocks.

    Raises:
        ValueError, TypeError: two targets, or a setting that the target does not have.
    """
    names = [name for name in TARGETS if name in plain]
    if not names:
        return None
    if len(names) > 1:
        raise ValueError(f"a schedule has one target, got {' and '.join(names)}")
    (name,) = names
    settings = {key: value for key, value in plain.items() if key != name}
    known = [f.name for f in fields(TARGETS[name]) if f.name != "images"][1:]
    if unknown := [key for key in settings if key not in known]:
        raise ValueError(f"beside {name} a schedule takes {', '.join(known)}; got {unknown[0]!r}")
    found: Target = TARGETS[name](plain[name], **settings)
    return found


def _timed(
    search: Search, method: Method, images: Tensor | None, stages: Stages | None, goal: Goal, batch: Tensor
) -> tuple[Schedule, Measured]:
    search, blocks = _prepare(search, method, images, stages, 1 / goal.factor)
    schedule, measured = schedule_for_speed(search, blocks, goal, batch)
    return schedule, replace(measured, flops_share=search.flops_share(schedule))


def _prepare(
    search: Search, method: Method, images: Tensor | None, stages: Stages | None, share: float
) -> tuple[Search, tuple[int, ...]]:
    """What counts FLOPs on the right images, and the stages, chosen on the images where they do not count."""
    by_image = method.counts is not None
    if by_image and images is None:
        raise ValueError("how many tokens stay depends on the images here: a target needs some, images=…")
    if images is not None and stages is not None and not by_image:
        raise ValueError("images choose the stages, so stages have no effect beside them: give one of the two")
    search = replace(
        search,
        least=LEAST_SHARE if by_image else max(LEAST_SHARE, method.part.least_share),
        images=_counted(search, method, images),
    )
    if images is not None and not by_image:
        return search, calibrate(search, share, images)
    depth = len(search.model.layers)
    blocks = stage_blocks(method.stages if stages is None else stages, depth)
    if blocks[-1] > depth:
        raise ValueError(f"stages are blocks from 1 to {depth} (the model's depth), got {blocks[-1]}")
    return search, blocks


def _counted(search: Search, method: Method, images: Tensor | None) -> Tensor | None:
    """The images that FLOPs are counted on. A user-defined function may read values, so it gets real ones."""
    if method.counts is not None:
        return images
    return _batch(search.model, 1, images) if method.functions else None


def _batch(model: TokenModel, size: int, images: Tensor | None) -> Tensor:
    """``(b c height width)`` noise of the model's size, or of that of the images."""
    shape = model.input_shape() if images is None else images.shape[1:]
    parameter = next(model.parameters())
    noise = torch.randn(size, *shape, generator=torch.Generator().manual_seed(0))
    return noise.to(parameter.device, parameter.dtype)


def _check_number(value: Any, what: str, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what}, got {value!r}")
    if not low < value < high:
        raise ValueError(f"{what}, got {value}")


def _check_common(target: Any) -> None:
    """The fields that targets share."""
    if target.images is not None and not (isinstance(target.images, Tensor) and target.images.dim() in (4, 5)):
        found = tuple(target.images.shape) if isinstance(target.images, Tensor) else target.images
        raise TypeError(f"images are a tensor (b c height width), of clips (b c t height width), got {found!r}")
    if target.stages is not None:
        object.__setattr__(target, "stages", read_stages(target.stages))
    size = vars(target).get("batch_size", 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"batch_size is a whole number from 1 on, got {size!r}")


TARGETS: dict[str, Any] = {"flops": Flops, "speedup": Speedup, "milliseconds": Milliseconds}
NAMES = {Flops: "flops", Speedup: "speedup", Milliseconds: "milliseconds"}
