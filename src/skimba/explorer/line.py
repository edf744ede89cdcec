"""A scan as a line: which positions it visits, and how much time passes at each of them under every alignment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skimba.insight.watching import BlockRun, ScanCall, watch_block
from skimba.models import TokenModel
from skimba.ops.backends.reference import passing_time
from skimba.pruning import Pruner
from skimba.tokens import SCAN_RULES, Layout, ScanOrder
from skimba.tokens.layout import walk_steps

RULES = ("none", "decay", "hold")
MEMORIES = {"long": 0.1, "median": 0.5, "short": 0.9}  # the share of all states that forget more slowly


def line(model: TokenModel, dense: TokenModel, image: Tensor, block: int) -> dict[str, Any]:
    """The ``scans`` of a block, for one image ``(1 c height width)``, and the ``rule``: which of RULES the model's pruning
    follows, None if it is another or nothing is pruned.

    Of each scan: ``walk`` names it. ``visits``: the patches of the full walk, in order; -1 for extra tokens and padding.
    ``at``: the steps of the walk whose token is still there. ``owned``: how many positions each of these stands for; None where
    all stand for one. ``memories``: three states, one that forgets slowly, a median one and one that forgets fast, each with what
    it decays by from a step to the next (the share ``exp(-x)`` is left): ``dense``, at every step of the dense model; ``none``,
    ``decay`` and ``hold``, at every step that is left (None where a rule needs owners and there are none).

    Raises:
        ValueError: a block out of range.
    """
    run, full = watch_block(model, image, block), watch_block(dense, image, block)
    reducer = model.reducer
    followed = reducer.method.alignment.scan if isinstance(reducer, Pruner) else None
    return {
        "rule": next((rule for rule in RULES if SCAN_RULES[rule] is followed), None),
        "scans": [_scan(run, call, whole) for call, whole in zip(run.scans, full.scans, strict=True)],
    }


def _scan(run: BlockRun, call: ScanCall, whole: ScanCall) -> dict[str, Any]:
    layout = run.tokens.layout
    order = layout.order(call.walk)
    rate, dense = _rates(call), _passed("none", ScanOrder(), whole)  # (e n), (L e)
    assert dense is not None
    passed = {rule: _passed(rule, order, call) for rule in RULES}
    pace = rate * dense.mean(0)[:, None]
    memories = {}
    for name, share in MEMORIES.items():
        rank = int(share * (pace.numel() - 1))
        channel, state = divmod(int(pace.flatten().argsort()[rank]), rate.shape[1])
        a = float(rate[channel, state])
        memories[name] = {
            "channel": channel,
            "state": state,
            "dense": (a * dense[:, channel]).tolist(),
            **{rule: None if time is None else (a * time[:, channel]).tolist() for rule, time in passed.items()},
        }
    size = order.size
    return {
        "walk": call.walk,
        "visits": _visits(layout, call.walk),
        "at": _at(layout, call.walk),
        "owned": None if size is None else size[0].long().tolist(),
        "memories": memories,
    }


def _passed(rule: str, order: ScanOrder, call: ScanCall) -> Tensor | None:
    """``(l e)`` the time that passes from each step's predecessor up to it; None where a rule needs owners and there are none."""
    chosen = SCAN_RULES[rule]
    if chosen.by_owner and order.size is None and order.missing is not None:
        return None
    scan = call.scan
    assert scan.delta_bias is not None
    delta = scan.delta.flip(1) if scan.reverse else scan.delta  # in the order of the steps, as `order` is
    plain = scan._replace(delta=delta, reverse=False, gap=None, step=None, hold=None, missing=None)
    return passing_time(plain._replace(**chosen.time(order, delta, scan.delta_bias)))[1][0]


def _rates(call: ScanCall) -> Tensor:
    """``(e n)`` -A."""
    A = call.scan.A.detach()
    return A.exp() if call.scan.log_A else -A


def _visits(layout: Layout, walk: str) -> list[int]:
    """The patch at each step of the full walk; -1 where none is."""
    steps = walk_steps(walk, layout.grid, layout.extras)
    cells = layout.image_part(torch.arange(layout.full_length)[None]).flatten()
    patch = torch.full((int(steps.max()) + 1,), -1).scatter(0, cells, torch.arange(len(cells)))
    return patch[steps].tolist()


def _at(layout: Layout, walk: str) -> list[int]:
    """The steps of the full walk whose token is still there; padding stays."""
    steps = walk_steps(walk, layout.grid, layout.extras)
    if layout.position is None:
        return list(range(len(steps)))
    there = torch.ones(len(steps), dtype=torch.bool)
    there[: layout.full_length] = False
    there[layout.position[0]] = True
    return there[steps].nonzero().flatten().tolist()
