"""A model that also says where its tokens are, as an ONNX file for the browser."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from skimba.export.metadata import describe
from skimba.export.onnx_file import to_onnx
from skimba.export.tracing import example
from skimba.export.writing import OPSETS
from skimba.models import Reducer, TokenModel, with_reducer
from skimba.models.evaluation import evaluating
from skimba.tokens import Groups, Tokens


class _Recorder(Reducer):
    """A model's own reducer; it keeps the tokens of each stage that removed some."""

    def __init__(self, reducer: Reducer | None) -> None:
        self.reducer = reducer
        self.stages: list[Tokens] = []

    @property
    def head_only(self) -> bool:
        return self.reducer is not None and self.reducer.head_only

    def reads_scan(self, block: int) -> bool:
        return self.reducer is not None and self.reducer.reads_scan(block)

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        reduced = tokens if self.reducer is None else self.reducer(tokens, block)
        assert isinstance(reduced, Tokens)
        if reduced is not tokens:
            self.stages.append(reduced)
        return reduced


class ShownModel(nn.Module):
    """A classifier whose result also holds, for each stage, where its tokens are.

    Attributes:
        owned: whether positions have owners.
    """

    def __init__(self, model: TokenModel, owned: bool) -> None:
        super().__init__()
        self._recorder = _Recorder(model.reducer)
        self.model, self.owned = with_reducer(model, self._recorder), owned

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(1 c height width)`` -> logits ``(1 num_classes)``, then for each stage the ``position (1 l)`` of every token, and
        with owners the ``owner (1 L)`` of every position."""
        self._recorder.stages = []
        logits = self.model(images)
        layouts = [tokens.layout for tokens in self._recorder.stages]
        found = [(one.position, one.owner) if self.owned else (one.position,) for one in layouts]
        return (logits, *(x for stage in found for x in stage if x is not None))


def write_shown(model: TokenModel, owned: bool, path: Path) -> None:
    """Write a model, dense or pruned, as a :class:`ShownModel` for one image at a time."""
    images = example(model, 1)
    with evaluating(model), torch.no_grad():
        program = torch.export.export(ShownModel(model, owned), (images,))
    path.write_bytes(to_onnx(program, describe(model, 1, images.dtype), OPSETS[0]))
