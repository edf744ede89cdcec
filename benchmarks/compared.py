"""What the study compares: methods, ablations, a sweep, fine-tunings. Names with ``hold 0.1`` or ``first order`` hold as skimba
0.1 did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skimba.pruning import METHODS as NAMED
from skimba.pruning import Drop, Flops, Merge, Method, Pairs, Target
from skimba.tokens import DECAY, HOLD, HOLD_FIRST_ORDER, NONE, Alignment

REDUCTIONS = (0.2, 0.3, 0.4, 0.5)  # of the exact FLOPs
KNOWN = ("evit", "condensed", "tome", "r_meeto", "tor", "mtr", "local", "random", "uniform", "top", "hold")
HOLD_0_1 = Method(Pairs("snake", "ward"), align=HOLD_FIRST_ORDER, stages="early", head_only=True)  # the preset of 0.1
METHODS: dict[str, Method] = {
    **{name: NAMED[name] for name in KNOWN},
    "top + hold": replace(NAMED["top"], align=HOLD),
    "r_meeto + hold": replace(NAMED["r_meeto"], align=HOLD),
    "hold, calibrated": NAMED["hold"],
    **{f"{name}, refitted": NAMED[name] for name in ("hold", "top", "condensed")},
    "hold 0.1": HOLD_0_1,
    "top + hold 0.1": replace(NAMED["top"], align=HOLD_FIRST_ORDER),
    "r_meeto + hold 0.1": replace(NAMED["r_meeto"], align=HOLD_FIRST_ORDER),
    "hold 0.1, calibrated": HOLD_0_1,
}
CALIBRATED = {"hold, calibrated": 256, "hold 0.1, calibrated": 256}  # training images
REFITTED = ", refitted"  # its features corrected on so many unlabelled training images
REFITTING_IMAGES = 4_000
ON_FURTHER_MODELS = ("hold", "hold_clips", "top", "condensed", "r_meeto", "tome", "hold, refitted")
FAMILY = {name: {**NAMED, **METHODS}[name] for name in ON_FURTHER_MODELS}
FAMILY_REDUCTIONS, CLIP_REDUCTIONS = (0.4, 0.3, 0.5), (0.4, 0.6)
TRAINED = {"dyvm": NAMED["dyvm"]}  # knows nothing before its training
RENAMED = {"evit_sorted": "condensed"}  # methods in older lines of the results
STAGES = (2, 4, 6)
KEEP: dict[int, float] = dict.fromkeys(STAGES, 0.7)
HALF: dict[int, float] = dict.fromkeys(STAGES, 0.5)
FIRST_ORDER = ", first order"
Pruning = tuple[Method, Mapping[int, float] | Target]


def _clip(align: Alignment = DECAY, keep: Mapping[int, float] = KEEP, **settings: Any) -> Pruning:
    """Tokens dropped by a score."""
    return Method(Drop(**settings), align), keep


def _merged(align: Alignment, keep: Mapping[int, float] = KEEP, **settings: Any) -> Pruning:
    """Tokens merged into an owner, held."""
    return Method(Merge(**settings), align), keep


def _pairs(align: Alignment, reduction: Pairs, schedule: Mapping[int, float] | Target = KEEP) -> Pruning:
    """Pairs merged, held, the last block for the head alone."""
    return replace(HOLD_0_1, align=align, reduction=reduction), schedule


def _held(align: Alignment, scan: str) -> dict[str, Pruning]:
    """What goes by owners, in the exact form or to first order."""
    return {
        "clip, hold, conv condensed": _clip(Alignment(scan, "condensed")),
        "clip, hold": _clip(align),
        "clip, hold, merged": _merged(align),
        "clip, hold, merged, owner nearest": _merged(align, owner="nearest"),
        "clip, hold, merged, owner similar and near": _merged(align, owner="similar_near"),
        "clip from segments, hold, merged": _merged(align, selection="segments"),
        "clip from windows, hold, merged": _merged(align, selection="windows"),
        "even, hold, merged": _merged(align, score="even"),
        "pairs by cosine, hold": _pairs(align, Pairs("sequence", "cosine", once=True)),
        "pairs by Ward, hold": _pairs(align, Pairs("sequence", "ward", once=True)),
        "pairs on a checkerboard by Ward, hold": _pairs(align, Pairs("snake", "ward")),
        "hold at -40 %, pairs of the sequence": _pairs(align, Pairs("sequence", "ward", once=True), Flops(0.6)),
        "hold at -40 %, pairs on a checkerboard": _pairs(align, Pairs("snake", "ward"), Flops(0.6)),
        "hold at -40 %, three stages": _pairs(align, Pairs("snake", "ward"), Flops(0.6, stages=(1, 2, 3))),
        "hold at -40 %, whole last block": (replace(HOLD_0_1, align=align, head_only=False), Flops(0.6)),
        "clip, hold, 0.5": _clip(align, HALF),
        "clip, hold, 0.5, owner similar and near": _clip(align, HALF, owner="similar_near"),
        "clip, hold, 0.5, merged, owner similar and near": _merged(align, HALF, owner="similar_near"),
    }


ABLATIONS: dict[str, Pruning] = {
    "clip, none": _clip(NONE),
    "clip, none, conv aligned": _clip(Alignment("none", "zeros")),
    "clip, decay, conv condensed": _clip(Alignment("decay", "condensed")),
    "clip, decay (paper)": _clip(),
    "clip, decay, own Δ̂": _clip(Alignment("decay_own", "zeros")),
    "clip, decay, bias Δ̂": _clip(Alignment("decay_bias", "zeros")),
    "clip, none, conv held": _clip(Alignment("none", "held")),
    **{f"{score}, decay": _clip(score=score) for score in ("no_clip", "l1", "l2", "delta")},
    "clip, none, 0.5": _clip(NONE, HALF),
    **_held(HOLD, "hold"),
    **{f"{name}{FIRST_ORDER}": pruning for name, pruning in _held(HOLD_FIRST_ORDER, "hold_first_order").items()},
}
SWEPT = {
    "hold": NAMED["hold"],
    "hold, first order": replace(NAMED["hold"], align=HOLD_FIRST_ORDER),
    "top": NAMED["top"],
    "condensed": NAMED["condensed"],
}
KEPT = (0.7, 0.5, 0.35, 0.2)
SEEDS = (0, 1, 2)
FINE_TUNED: dict[str, dict[str, Any]] = {
    "dense": {},  # what another pass gives the model that nothing was taken from
    "condensed": {},
    "top": {},
    "r_meeto": {"teacher": "dense"},
    "hold": {},
    "hold + teacher": {"teacher": "dense"},
    "hold 0.1": {},
    "hold 0.1 + teacher": {"teacher": "dense"},
    "dyvm + teacher": {"teacher": "dense"},
}
FINE_TUNING_IMAGES = 10_000  # a fixed subset, so that all methods and seeds fit into an hour
FINE_TUNING: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 3e-4,
    "dtype": "bf16",
    "pretrained": True,
}
FULL_PASS = {**FINE_TUNING, "learning_rate": 1e-3}  # better than 3e-3 on 10,000 training images left out
