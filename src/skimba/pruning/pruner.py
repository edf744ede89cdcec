"""``prune`` gives a model the reducer that takes tokens out between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from skimba.dense.model import DenseModel, tokens_of, with_inner_reducer
from skimba.models import TokenModel
from skimba.pruning.calibration import calibrate, keep_for_flops, keep_for_speedup
from skimba.pruning.importance import IMPORTANCE, READS_NO_SCAN, Importance
from skimba.pruning.learned import LEARNED, LearnedImportance
from skimba.pruning.likeness import LIKENESS, Likeness
from skimba.pruning.presets import PRESETS, Method
from skimba.pruning.reduction import (
    DISORDERS,
    MATCH_ONCE,
    OWNER,
    PAIRS,
    REDUCTION,
    Owner,
    Stage,
    kept_places,
    pair_weights,
    weights,
)
from skimba.pruning.schedule import COUNT_STEP, COUNTS, STAGES, Keep, paper_schedule, stage_count
from skimba.pruning.selection import SELECTION, Selection
from skimba.tokens import ALIGNMENTS, CONV_RULES, Alignment, Groups, Tokens
from skimba.tokens.once import once

Model = TypeVar("Model", bound=TokenModel | DenseModel)
ALIGN_CONV = {"none": "condensed", "decay": "zeros", "hold": "held"}  # the convolution that goes with each alignment
GAP_DELTA = {"previous": "decay", "own": "decay_own", "bias": "decay_bias"}  # the scan rule of each
LEAST_SHARE = 0.05  # that a target may ask a stage to keep


@dataclass(frozen=True)
class Pruner:
    """The reducer that :func:`prune` installs: what is done after which block. It holds no state but a learned importance.

    Attributes:
        keep: after that many blocks (1-based), the share (0, 1] of the image tokens that stays.
        method: how they are chosen, removed and made up for.
        seed: for random importance, and for a learned one before its training.
        scorer: the learned importance, if the method has one; the model that is pruned so owns it too.
    """

    keep: Mapping[int, float]
    method: Method = PRESETS["hold"]
    seed: int = 0
    scorer: LearnedImportance | None = field(default=None, compare=False)

    @classmethod
    def of(cls, model: TokenModel, keep: Keep, method: Method, seed: int) -> Pruner:
        """A pruner for that model."""
        learned = method.importance == LEARNED and method.reduction not in PAIRS
        scorer = LearnedImportance(model.num_features, keep, seed) if learned else None
        if scorer is not None:
            parameter = next(model.parameters())
            scorer.to(parameter.device, parameter.dtype).train(model.training)
        return cls(keep, method, seed, scorer)

    @once
    def alignment(self) -> Alignment:
        """What the layers do about missing positions."""
        conv: Any = self.method.align_conv
        if conv is True:
            conv = ALIGN_CONV.get(self.method.align, "held")  # type: ignore[arg-type]
        elif conv is False:
            conv = "condensed"
        scan = GAP_DELTA[self.method.gap_delta] if self.method.align == "decay" else self.method.align
        return Alignment(scan, conv)

    @property
    def counts_by_image(self) -> bool:
        """Whether images keep different numbers of tokens."""
        return self.method.counts != "share"

    @property
    def head_only(self) -> bool:
        """Whether the last block computes only what the head reads; not where nothing is removed: that is the dense model."""
        return self.method.head_only and any(share < 1 for share in self.keep.values())

    def settings(self) -> dict[str, Any]:
        """The arguments of :func:`prune` that make this pruner again, as plain data for JSON or TOML (block numbers as text).

        Raises:
            ValueError: a part of the method is a function of one's own.
        """
        found = asdict(self.method)
        if own := [name for name, value in found.items() if callable(value)]:
            raise ValueError(f"only named parts can be written down, got a function as {', '.join(own)}")
        return {"keep": {str(block): share for block, share in self.keep.items()}, **found, "seed": self.seed}

    def reads_scan(self, block: int) -> bool:
        """Only a stage that scores its tokens needs what the block's scans computed."""
        scores = self.method.reduction not in PAIRS and self.method.importance not in READS_NO_SCAN
        return scores and self.keep.get(block, 1.0) < 1

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        share = self.keep.get(block)
        if share is None:
            return tokens
        layout = tokens.layout
        if self.counts_by_image and share < 1:
            return self._reduce_by_image(tokens, block, share)
        return self._reduce(tokens, block, stage_count(layout.image_count, share, len(layout.extras) > 0))

    def _reduce(self, tokens: Tokens, block: int, count: int) -> Tokens:
        if count >= tokens.layout.image_count:
            return tokens
        stage, reduction = self._stage(block, count), entry(REDUCTION, self.method.reduction, "reduction")
        if self.scorer is None:
            return reduction(tokens, stage)
        score = stage.score(tokens)  # once, for the tokens that stay carry its gradient
        reduced = reduction(tokens, replace(stage, score=lambda _: score))
        return self.scorer.carry_gradient(reduced, score, kept_places(tokens, reduced))

    def _reduce_by_image(self, tokens: Tokens, block: int, share: float) -> Tokens | Groups:
        """As many tokens stay in each image as its own weights say, rounded up to COUNT_STEP."""
        present, stage = tokens.layout.image_count, self._stage(block, tokens.layout.image_count)
        walk = PAIRS.get(self.method.reduction)  # type: ignore[arg-type]
        weight = weights(tokens, stage) if walk is None else pair_weights(tokens, stage, walk)
        counts = entry(COUNTS, self.method.counts, "counts")(weight, share) + (present - weight.shape[1])
        counts = ((counts + COUNT_STEP - 1) // COUNT_STEP * COUNT_STEP).clamp(max=present)
        distinct = counts.unique().tolist()
        if len(distinct) == 1:
            return self._reduce(tokens, block, distinct[0])
        rows = tuple((counts == count).nonzero()[:, 0] for count in distinct)
        parts = zip(rows, distinct, strict=True)
        return Groups(rows, tuple(self._reduce(tokens.images(mine), block, count) for mine, count in parts))

    def _stage(self, block: int, count: int) -> Stage:
        method = self.method
        score = (
            partial(entry(IMPORTANCE, method.importance, "importance"), count=count, seed=self.seed + block)
            if self.scorer is None
            else partial(self.scorer, block=block)
        )
        return Stage(
            count=count,
            alignment=self.alignment,
            score=score,
            owner=entry(OWNER, method.owner, "owner"),
            selection=entry(SELECTION, method.selection, "selection"),
            likeness=entry(LIKENESS, method.likeness, "likeness"),
        )


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
    keep: Mapping[int, float] | Mapping[str, float] | None = None,
    target_flops: float | None = None,
    target_speedup: float | None = None,
    batch_size: int = 8,
    images: Tensor | None = None,
    reduction: str | Callable[[Tokens, Stage], Tokens] | None = None,
    importance: str | Importance | None = None,
    selection: str | Selection | None = None,
    owner: str | Owner | None = None,
    likeness: str | Likeness | None = None,
    align: str | Callable[..., Any] | None = None,
    align_conv: bool | str | None = None,
    gap_delta: str | None = None,
    stages: str | tuple[int, ...] | None = None,
    counts: str | Callable[[Tensor, float], Tensor] | None = None,
    head_only: bool | None = None,
    seed: int = 0,
) -> Model:
    """The same model, sharing its weights, with tokens removed between its blocks. The model given stays dense.

    How many tokens go, and where, is said by one of ``keep``, ``target_flops`` and ``target_speedup``; by the paper's schedule
    for the model (:func:`~skimba.pruning.paper_schedule`) if none is given. ``model.reducer.keep`` of the result shows it.

    Args:
        model: a :class:`~skimba.models.VisionMamba` or :class:`~skimba.models.PlainMamba`, or a detector or segmenter, whose
            backbone is pruned; pruned before or not. A target is a share of the backbone.
        preset: a key of :data:`~skimba.pruning.PRESETS`: ``"auto"`` (the default: the best of the study in
            docs/results.md), ``"hold"`` (ours: pairs merge, every position keeps an owner), ``"top"`` (the paper: clipped
            score, dropped tokens, decay alignment) or a rival. Arguments that are given override it.
        keep: ``{blocks: share}``: after that many blocks, the share in (0, 1] of the image tokens that stays.
        target_flops: share in (0, 1) of the dense model's exact FLOPs (:func:`skimba.count_flops`) to come down to.
        target_speedup: above 1: how many times faster the model shall run, measured on this machine while nothing else runs.
        batch_size: with ``target_speedup``, images at a time: small batches gain less.
        images: ``(b c height width)`` normalised images, a few hundred without labels: with a target, the stages are
            chosen on them, for the least change of the model's answers; with ``counts="mass"`` FLOPs are counted on them.
        reduction: a key of ``REDUCTION`` or a function ``(tokens, stage) -> tokens``.
        importance: a key of ``IMPORTANCE``, ``"learned"`` (a small network for each stage, to be trained with the model:
            :mod:`skimba.pruning.learned`), or a function ``(tokens, count, seed) -> (b l)``; not used where pairs merge.
        selection: a key of ``SELECTION`` or a function: which tokens stay by their importance.
        owner: ``"similar"``, ``"nearest"``, ``"similar_near"`` (both) or a function: who inherits a removed token's positions.
        likeness: a key of ``LIKENESS`` or a function: which pairs merge first.
        align: ``"none"``, ``"decay"`` or ``"hold"``: how scans make up for missing positions.
        align_conv: True: the convolution is aligned as ``align`` says; False: it runs on the condensed sequence; or one of
            ``"condensed"``, ``"zeros"``, ``"held"`` by name.
        gap_delta: with ``decay``, the time step of a missing position: ``"previous"``, ``"own"`` or ``"bias"``.
        stages: for a target: a key of ``STAGES`` or block numbers.
        counts: ``"share"``: ``keep`` is the share of the tokens, the same number in every image; ``"mass"``: the share of the
            importance (of the unlikeness of pairs) that stays, so that each image keeps its own number of tokens, and
            FLOPs depend on the images; or a function ``(weight (b m), share) -> (b)``.
        head_only: whether the last block computes only what the head reads of it: where that is the class token (Vim), no other
            token's gate and output, and each scan only as far as the class token. Logits are the same, to rounding, for
            fewer FLOPs; ``forward_features`` still gives all tokens.
        seed: for ``importance="random"``.

    Raises:
        TypeError: ``model`` takes no reducer.
        ValueError: an unknown key, a share or target outside its range or out of reach, a block the model does not have, more
            than one of keep and the targets, or published matchings asked to leave less than half at one stage.
    """
    if not isinstance(model, TokenModel | DenseModel):
        raise TypeError(f"prune needs a skimba model, got {type(model).__name__}")
    tokens = tokens_of(model)
    changes = {
        "reduction": reduction,
        "importance": importance,
        "selection": selection,
        "owner": owner,
        "likeness": likeness,
        "align": align,
        "align_conv": align_conv,
        "gap_delta": gap_delta,
        "stages": stages,
        "counts": counts,
        "head_only": head_only,
    }
    method = entry(PRESETS, "auto" if preset is None else preset, "preset")
    method = replace(method, **{name: value for name, value in changes.items() if value is not None})
    _check_method(method)
    given = {"keep": keep, "target_flops": target_flops, "target_speedup": target_speedup}
    if len(named := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(f"give one of {', '.join(given)}; got {' and '.join(named)}")
    if keep is None and len(named) == 0:
        keep = paper_schedule(tokens)
    elif keep is None:
        keep = _keep_for_target(tokens, method, target_flops, target_speedup, batch_size, images, seed)
    keep = {_block_number(block): share for block, share in keep.items()}
    _check_keep(keep, method, len(tokens.layers))
    return with_inner_reducer(model, Pruner.of(tokens, keep, method, seed))


def _keep_for_target(
    model: TokenModel,
    method: Method,
    target_flops: float | None,
    target_speedup: float | None,
    batch_size: int,
    images: Tensor | None,
    seed: int,
) -> Keep:
    """The schedule for a target."""
    if target_flops is not None and not 0 < target_flops < 1:
        raise ValueError(f"target_flops is a share of the dense model's FLOPs in (0, 1), got {target_flops}")
    if target_speedup is not None and not target_speedup > 1:
        raise ValueError(f"target_speedup must be above 1, got {target_speedup}")
    reducer = partial(Pruner.of, model, method=method, seed=seed)
    if method.counts != "share" and images is None:
        raise ValueError("how many tokens stay depends on the images here: a target needs some, images=…")
    least = 0.5 if method.reduction in MATCH_ONCE and method.counts == "share" else LEAST_SHARE
    share = target_flops if target_speedup is None else 1 / target_speedup
    assert share is not None
    stages = method.stages if isinstance(method.stages, tuple) else STAGES[method.stages](len(model.layers))
    counting = None if method.counts == "share" else images
    if images is not None and counting is None:
        stages = tuple(calibrate(model, reducer, share, least, images))
    keep_at = partial(keep_for_flops, model, reducer, stages, least=least, images=counting)
    if target_speedup is None:
        return keep_at(target=share)
    size = model.img_size if images is None else images.shape[2:]
    parameter = next(model.parameters())
    batch = torch.zeros(batch_size, model.in_chans, *size, dtype=parameter.dtype, device=parameter.device)
    shortest = dict.fromkeys(stages, least)
    return keep_for_speedup(model, lambda share: keep_at(target=share), shortest, reducer, target_speedup, batch)


def _block_number(block: Any) -> Any:
    return int(block) if isinstance(block, str) and block.isdecimal() else block  # JSON and TOML know only text keys


def _check_method(method: Method) -> None:
    entry(REDUCTION, method.reduction, "reduction")
    if method.importance != LEARNED:
        entry(IMPORTANCE, method.importance, "importance")
    entry(SELECTION, method.selection, "selection")
    entry(OWNER, method.owner, "owner")
    entry(LIKENESS, method.likeness, "likeness")
    entry(ALIGNMENTS, method.align, "align")
    if not isinstance(method.align_conv, bool):
        entry(CONV_RULES, method.align_conv, "align_conv")
    if method.counts != "share":
        entry(COUNTS, method.counts, "counts")
    if method.gap_delta not in GAP_DELTA:
        raise ValueError(f"unknown gap_delta {method.gap_delta!r}; known: {', '.join(GAP_DELTA)}")
    if isinstance(method.stages, str) and method.stages not in STAGES:
        raise ValueError(f"unknown stages {method.stages!r}; known: {', '.join(STAGES)}, or block numbers")
    aligned = method.align != "none" or method.align_conv not in (True, False, "condensed")
    if method.reduction in DISORDERS and aligned:
        raise ValueError(
            f"{method.reduction} leaves tokens out of scan order, where nothing can be aligned: align must be 'none', got "
            f"{method.align!r} and align_conv {method.align_conv!r}"
        )


def _check_keep(keep: Mapping[int, float], method: Method, depth: int) -> None:
    for block, share in keep.items():
        if isinstance(block, bool) or not isinstance(block, int) or not 1 <= block <= depth:
            raise ValueError(f"keep counts blocks from 1 to {depth} (the model's depth), got {block!r}")
        if not isinstance(share, int | float) or not 0 < share <= 1:
            raise ValueError(f"keep needs shares in (0, 1], got {share!r} after block {block}")
        if method.reduction in MATCH_ONCE and method.counts == "share" and share < 0.5:
            raise ValueError(
                f"{method.reduction} matching removes at most half of the tokens at one stage: keep at least 0.5, got "
                f"{share} after block {block}; spread it over two stages"
            )
