"""How far a scan remembers: the time that passes along it, and what of its state is left after that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from skimba.insight.watching import BlockRun, ScanCall, plain_mode, watch_block
from skimba.models import TokenModel
from skimba.ops.backends.reference import passing_time
from skimba.tokens.layout import walk_steps


@dataclass(frozen=True, eq=False)
class ScanTimes:
    """The clocks of one block's scans, step by step in the order in which tokens are visited.

    Attributes:
        place: ``(b s t)`` int64: the step at which the scan over the full sequence comes by the token visited at step ``t``.
        position: ``(b s t)`` int64: its position in the full sequence; padding of windows from ``L`` on.
        step: ``(b s t e)`` the step's own length Δ.
        passed: ``(b s t e)`` the time that passes between the state before and the state after: Δ, and what an alignment adds
            for positions that are gone. 0 at the first step, where the state before is zero.
        rate: ``(s e n)`` A, negative: a state is multiplied by ``exp(passed A)``.
        walks: of each scan, keys of :data:`skimba.tokens.walks.WALKS`.
    """

    place: Tensor
    position: Tensor
    step: Tensor
    passed: Tensor
    rate: Tensor
    walks: tuple[str, ...]

    @property
    def clock(self) -> Tensor:
        """``(b s t e)`` the time that has passed since the first step."""
        return self.passed.cumsum(2)

    @property
    def decay_lengths(self) -> Tensor:
        """``(b s e n)``: after how many positions of the full sequence a state has fallen to 1/e, at the mean pace of the scan.

        Infinite where no time passes.
        """
        span = (self.place[..., -1] - self.place[..., 0]).clamp(min=1)  # (b s)
        pace = self.clock[:, :, -1] / span[..., None]  # (b s e), time for each position
        return -1 / (pace[..., None] * self.rate)

    def remaining(self, start: int = 0) -> Tensor:
        """``(b s t)`` the share that is left at each step of what stood in the state after step ``start``: the mean over all
        channels and states, 1 at ``start`` and 0 before it.

        Raises:
            ValueError: no such step.
        """
        steps = self.place.shape[2]
        if not 0 <= start < steps:
            raise ValueError(f"start must be 0 … {steps - 1}, got {start}")
        age = self.clock - self.clock[:, :, start, None]  # (b s t e)
        left = torch.zeros(age.shape[:3], dtype=age.dtype, device=age.device)
        for step in range(start, steps):
            left[:, :, step] = torch.exp(age[:, :, step, :, None] * self.rate).mean((-1, -2))
        return left


def scan_times(model: TokenModel, images: Tensor, block: int) -> ScanTimes:
    """The clocks of a block's scans.

    Args:
        model: dense or pruned.
        images: ``(b c height width)``.
        block: 1-based.

    Raises:
        ValueError: no such block; images that keep different numbers of tokens.
    """
    with plain_mode():
        run = watch_block(model, images, block)
        found = [_times(run, call) for call in run.scans]
        rate = torch.stack([_rate(call) for call in run.scans])
    place, position, step, passed = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
    return ScanTimes(place, position, step, passed, rate, tuple(call.walk for call in run.scans))


def _times(run: BlockRun, call: ScanCall) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Places and positions ``(b t)``, own steps and passed time ``(b t e)``."""
    scan, layout = call.scan, run.tokens.layout
    step, passed = passing_time(scan)
    batch, steps = step.shape[:2]
    walk = walk_steps(call.walk, layout.grid, layout.extras).to(step.device)
    padding = torch.arange(layout.full_length, len(walk), device=step.device).expand(batch, -1)
    position = torch.cat([layout.positions(batch, step.device), padding], 1)
    visited = torch.arange(steps, device=step.device) if scan.order is None else scan.order.long()
    position = position.gather(1, visited.expand(batch, -1))
    if scan.reverse:
        position, step, passed = position.flip(1), step.flip(1), passed.flip(1)
    passed = torch.cat([torch.zeros_like(passed[:, :1]), passed[:, 1:]], 1)
    return walk.argsort()[position], position, step, passed


def _rate(call: ScanCall) -> Tensor:
    A = call.scan.A.to(torch.promote_types(call.scan.A.dtype, torch.float32))
    return -A.exp() if call.scan.log_A else A


def pace(dense: ScanTimes, pruned: Mapping[str, ScanTimes]) -> dict[str, float]:
    """By title how fast the clocks of a pruned model's scans run along the positions, where the dense model's run at 1.

    The paper's argument in a number: dropped tokens take their time with them, unless an alignment gives it back.
    """
    own = _mean_pace(dense)
    return {title: _mean_pace(times) / own for title, times in pruned.items()}


def _mean_pace(times: ScanTimes) -> float:
    span = times.place[..., -1] - times.place[..., 0]
    return float((times.clock[:, :, -1].mean(-1) / span).mean())
