"""``prune`` gives a model the reducer that takes tokens out between its blocks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from skimba.layers.alignment import CONVOLUTION, GAP_DELTA, SCAN_TIME
from skimba.pruning.importance import IMPORTANCE, READS_NO_SCAN, Importance
from skimba.pruning.presets import PRESETS, paper_schedule
from skimba.pruning.reduction import OWNER, REDUCTION, Owner, Stage
from skimba.tokens import Alignment, Tokens

Model = TypeVar("Model", bound=nn.Module)
ALIGN_CONV = {"none": "condensed", "decay": "zeros", "hold": "held"}  # the convolution that goes with each alignment


def stage_count(present: int, share: float, has_class: bool) -> int:
    """Image tokens that stay of ``present``: ``ceil(share · present)``; with a middle class token the largest even number not
    above it (the published token counts of Vim: 196 → 156 → 124 → 100), but at least one pair.
    """
    if share == 1:
        return present
    count = math.ceil(share * present - 1e-9)  # 0.55 · 100 must not become 56
    if has_class:
        count = max(count // 2 * 2, min(2, present))
    return count


@dataclass(frozen=True)
class Pruner:
    """The reducer that :func:`prune` installs: what is done after which block. It holds no state.

    Attributes:
        keep: after that many blocks (1-based), the share (0, 1] of the image tokens that stays.
        reduction, importance, owner: keys of ``REDUCTION``, ``IMPORTANCE``, ``OWNER``, or functions like those in them.
        alignment: what the layers do about missing positions.
        seed: for random importance.
    """

    keep: Mapping[int, float]
    reduction: str | Callable[[Tokens, Stage], Tokens] = "bipartite"
    importance: str | Importance = "clip"
    owner: str | Owner = "similar"
    alignment: Alignment = field(default_factory=Alignment)
    seed: int = 0

    def reads_scan(self, block: int) -> bool:
        """Only a stage that scores its tokens needs what the block's scans computed."""
        scores = self.reduction != "bipartite" and self.importance not in READS_NO_SCAN
        return scores and self.keep.get(block, 1.0) < 1

    def __call__(self, tokens: Tokens, block: int) -> Tokens:
        share = self.keep.get(block)
        if share is None:
            return tokens
        layout = tokens.layout
        count = stage_count(layout.image_count, share, layout.class_position is not None)
        if count >= layout.image_count:
            return tokens
        importance = entry(IMPORTANCE, self.importance, "importance")

        def score(tokens: Tokens) -> Tensor:
            return importance(tokens, count, self.seed + block)

        stage = Stage(count, self.alignment, score, entry(OWNER, self.owner, "owner"))
        return entry(REDUCTION, self.reduction, "reduction")(tokens, stage)


def entry(table: Mapping[str, Any], key: Any, what: str) -> Any:
    """The table's entry for a key; a function stands for itself.

    Raises:
        ValueError: the key is not in the table.
    """
    if callable(key):
        return key
    if key not in table:
        raise ValueError(f"unknown {what} {key!r}; known: {', '.join(table)}, or a function")
    return table[key]


def prune(
    model: Model,
    preset: str | None = None,
    *,
    keep: Mapping[int, float] | None = None,
    reduction: str | Callable[[Tokens, Stage], Tokens] | None = None,
    importance: str | Importance | None = None,
    align: str | Callable[..., Any] | None = None,
    owner: str | Owner | None = None,
    align_conv: bool | str | None = None,
    gap_delta: str | None = None,
    seed: int = 0,
) -> Model:
    """The same model, sharing its weights, with tokens removed between its blocks. The model given stays dense.

    Args:
        model: a :class:`~skimba.models.VisionMamba` or :class:`~skimba.models.PlainMamba`, pruned before or not.
        preset: ``"hold"`` (the default, ours: bipartite merging, hold alignment) or ``"top"`` (the paper: clipped score,
            dropped tokens, decay alignment). Arguments that are given override it.
        keep: ``{blocks: share}``: after that many blocks, the share in (0, 1] of the image tokens that stays. By default the
            paper's schedule for the model (see :func:`~skimba.pruning.presets.paper_schedule`).
        reduction: ``"drop"``, ``"merge"``, ``"bipartite"`` or a function ``(tokens, stage) -> tokens``.
        importance: ``"clip"``, ``"no_clip"``, ``"l1"``, ``"l2"``, ``"delta"``, ``"random"``, ``"even"`` or a function
            ``(tokens, count, seed) -> (b l)``; used by drop and merge.
        align: ``"none"``, ``"decay"`` or ``"hold"``: how scans make up for missing positions.
        owner: ``"similar"`` or ``"nearest"`` or a function: who inherits a removed token's positions.
        align_conv: True: the convolution is aligned as ``align`` says; False: it runs on the condensed sequence; or one of
            ``"condensed"``, ``"zeros"``, ``"held"`` by name.
        gap_delta: with ``decay``, the time step of a missing position: ``"previous"``, ``"own"`` or ``"bias"``.
        seed: for ``importance="random"``.

    Raises:
        TypeError: ``model`` takes no reducer.
        ValueError: an unknown key, a share outside (0, 1], a block the model does not have, or bipartite matching asked to
            keep less than half at one stage.
    """
    if not hasattr(model, "reducer"):
        raise TypeError(f"prune needs a skimba model, got {type(model).__name__}")
    changes = {
        "reduction": reduction,
        "importance": importance,
        "align": align,
        "owner": owner,
        "align_conv": align_conv,
        "gap_delta": gap_delta,
    }
    method = entry(PRESETS, "hold" if preset is None else preset, "preset")
    method = replace(method, **{name: value for name, value in changes.items() if value is not None})
    pruner = Pruner(
        keep=dict(paper_schedule(model) if keep is None else keep),
        reduction=method.reduction,
        importance=method.importance,
        owner=method.owner,
        alignment=_alignment(method.align, method.align_conv, method.gap_delta),
        seed=seed,
    )
    _check(pruner, len(model.layers))  # type: ignore[arg-type]
    return with_reducer(model, pruner)


def with_reducer(model: Model, reducer: Callable[..., Tokens] | None) -> Model:
    """A shallow copy of the model, with the same parameters and another reducer."""
    twin = copy.copy(model)
    for table in ("_parameters", "_buffers", "_modules"):  # the copy's own tables, holding the same tensors and modules
        setattr(twin, table, dict(getattr(model, table)))
    twin.reducer = reducer  # type: ignore[assignment]
    return twin


def _alignment(align: Any, align_conv: bool | str, gap_delta: str) -> Alignment:
    entry(SCAN_TIME, align, "align")
    conv: Any = align_conv
    if align_conv is True:
        conv = ALIGN_CONV.get(align, "held")
    elif align_conv is False:
        conv = "condensed"
    entry(CONVOLUTION, conv, "align_conv")
    if gap_delta not in GAP_DELTA:
        raise ValueError(f"unknown gap_delta {gap_delta!r}; known: {', '.join(GAP_DELTA)}")
    return Alignment(align, conv, gap_delta)


def _check(pruner: Pruner, depth: int) -> None:
    entry(REDUCTION, pruner.reduction, "reduction")
    entry(IMPORTANCE, pruner.importance, "importance")
    entry(OWNER, pruner.owner, "owner")
    for block, share in pruner.keep.items():
        if isinstance(block, bool) or not isinstance(block, int) or not 1 <= block <= depth:
            raise ValueError(f"keep counts blocks from 1 to {depth} (the model's depth), got {block!r}")
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise ValueError(f"keep needs shares in (0, 1], got {share!r} after block {block}")
        if pruner.reduction == "bipartite" and share < 0.5:
            raise ValueError(
                f"bipartite matching removes at most half of the tokens at one stage: keep at least 0.5, got {share} after "
                f"block {block}; spread it over two stages"
            )


def trace(model: nn.Module, images: Tensor) -> list[Tokens]:
    """The tokens after embedding and after each stage that removed some, for drawing and for tests.

    Args:
        model: a pruned model.
        images: ``(b c height width)``.
    """
    stages: list[Tokens] = [model.embed(images)]  # type: ignore[operator]
    reducer = model.reducer

    class Recorder:
        def reads_scan(self, block: int) -> bool:
            return reducer is not None and reducer.reads_scan(block)  # type: ignore[operator,union-attr]

        def __call__(self, tokens: Tokens, block: int) -> Tokens:
            reduced: Tokens = tokens if reducer is None else reducer(tokens, block)  # type: ignore[operator]
            if reduced is not tokens:
                stages.append(reduced)
            return reduced

    with_reducer(model, Recorder()).forward_features(images)  # type: ignore[operator]
    return stages
