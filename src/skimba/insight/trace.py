"""The tokens of a pruned model, stage by stage."""

from __future__ import annotations

from torch import Tensor

from skimba.models import Reducer, TokenModel, with_reducer
from skimba.tokens import Groups, Tokens


def trace(model: TokenModel, images: Tensor) -> list[Tokens]:
    """The tokens after embedding and after each stage that removed some, for drawing and for tests.

    Raises ValueError where the images keep different numbers of tokens: trace them one by one.

    Args:
        model: a pruned model.
        images: ``(b c height width)``.
    """
    stages: list[Tokens] = [model.embed(images)]
    reducer = model.reducer

    class Recorder(Reducer):
        def reads_scan(self, block: int) -> bool:
            return reducer is not None and reducer.reads_scan(block)

        def __call__(self, tokens: Tokens, block: int) -> Tokens:
            reduced = tokens if reducer is None else reducer(tokens, block)
            if isinstance(reduced, Groups):
                raise ValueError("the images keep different numbers of tokens: trace them one by one")
            if reduced is not tokens:
                stages.append(reduced)
            return reduced

    with_reducer(model, Recorder()).forward_features(images)
    return stages
