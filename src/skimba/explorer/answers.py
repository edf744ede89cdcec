"""What one side says about one picture: its first answers, its tokens stage by stage, what it costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from skimba.cost.flops import count_flops
from skimba.cost.timing import take_turns
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.explorer.catalogue import Opened
from skimba.explorer.found import Found, shares
from skimba.insight.drawing import token_map
from skimba.insight.trace import trace
from skimba.models import TokenModel
from skimba.pruning import Pruner
from skimba.tasks.classification import TOP
from skimba.tokens import Tokens

ROUNDS, LEAST_TIME_S = 5, 0.3  # of a timing
GIGA = 1e9


Model = TokenModel | DenseModel


def answer(opened: Opened, model: Model, image: Tensor, found: Callable[[], Found]) -> dict[str, Any]:
    """``classes`` and ``stages`` of one image ``(1 c height width)`` or clip ``(1 c t height width)``. The classes are the first
    five with their probabilities, best first; of a detector those of its objects with their scores, of a segmenter those in the
    picture with their shares. ``grid``: rows and columns of patches; the ``frames`` of a clip stand below one another.

    Args:
        found: what a detector or segmenter finds in the image; not asked of a classifier.
    """
    with torch.inference_mode():
        if isinstance(model, DenseModel):
            best = shares(model, found())
            stages = trace(model.backbone, model.pictures.normalize(image))
        else:
            best, stages = _best(model(image)[0].float().softmax(0)), trace(model, image)
    classes = [{"number": n, "name": opened.name_of(n), "probability": probability} for n, probability in best]
    model = tokens_of(model)
    afters = [0, *stage_blocks_of(model)]
    return {
        "classes": classes,
        "grid": [math.prod(stages[0].grid[:-1]), stages[0].grid[-1]],
        "frames": opened.frames,
        "depth": len(model.layers),
        "classToken": model.class_token_count > 0,
        "stages": [stage(tokens, after) for tokens, after in zip(stages, afters, strict=True)],
    }


def _best(probabilities: Tensor) -> list[tuple[int, float]]:
    best = probabilities.topk(min(TOP, len(probabilities)))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def stage(tokens: Tokens, after: int) -> dict[str, Any]:
    """The tokens of one image after a block.

    ``home`` has a number for each patch of the grid, in raster order, frame by frame: the patch whose token stands for
    it; -1 where none does.
    """
    positions = torch.arange(tokens.layout.full_length)[None]
    cells = tokens.layout.image_part(positions).flatten()  # full position of each patch
    patch = torch.full((tokens.layout.full_length,), -1).scatter(0, cells, torch.arange(len(cells)))
    token = token_map(tokens)[0].flatten()
    home = torch.where(token < 0, -1, patch[tokens.position[0][token.clamp(min=0)]])
    return {"after": after, "tokens": tokens.layout.image_count, "home": home.tolist()}


def stage_blocks_of(model: TokenModel) -> list[int]:
    """After which blocks tokens go, at the image size that the model was made for."""
    reducer = model.reducer
    if reducer is None:
        return []
    assert isinstance(reducer, Pruner)
    assert reducer.counts is not None
    return [b for b, (before, left) in zip(reducer.amounts, pairwise(reducer.counts), strict=True) if left < before]


def cost(model: Model) -> dict[str, float]:
    """Billions of multiply-adds for one image, by both conventions."""
    return {c: count_flops(model, convention=c).total / GIGA for c in ("exact", "published")}


def times(models: Mapping[int, Model], image: Tensor) -> dict[int, float]:
    """Median milliseconds of each model on the image, warmed up, in turns."""
    with torch.inference_mode():
        taken = take_turns({key: partial(model, image) for key, model in models.items()}, ROUNDS, LEAST_TIME_S)
    return {key: 1e3 * statistics.median(seconds) for key, seconds in taken.items()}
