"""What every model is: image -> tokens -> blocks, with one reducer between them -> head."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from skimba.tokens import Groups, Tokens

# Last parts of the names of parameters without weight decay: rates and skips of the recurrence, and what marks tokens.
NOT_DECAYED = frozenset({"A_log", "A_b_log", "D", "D_b", "direction_Bs", "pos_embed", "cls_token"})


class Reducer(Protocol):
    """What a model calls after each block, if it was given one.

    It may have an attribute ``head_only``: then, for logits, the last block computes only what the head reads of it, and the
    reducer is not called after it.
    """

    def reads_scan(self, block: int) -> bool:
        """Whether the reducer wants ``tokens.scan`` of that block (1-based)."""

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        """The tokens that go on to the next block; in groups where not all images keep equally many."""


class TokenModel(nn.Module):
    """The way of an image through a model.

    A model defines ``embed`` (images to tokens), ``layers`` (the blocks), ``forward_head`` (tokens to logits) and the ``grid``
    that its positions are for.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``.
        in_chans: image channels.
        embed_dim: model width.
        num_classes: size of the head.

    Attributes:
        pretrained_cfg: timm's: how the weights expect pictures; and ``architecture`` and ``sizes`` as create_model was asked.
    """

    class_token_count: int
    layers: nn.ModuleList
    grid: tuple[int, int]

    def __init__(self, img_size: int | tuple[int, int], in_chans: int, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, embed_dim
        self.pretrained_cfg: dict[str, Any] = {}
        self.reducer: Reducer | None = None

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens."""
        raise NotImplementedError

    def forward_head(self, tokens: Tokens) -> Tensor:
        """Logits ``(b num_classes)`` of the tokens after the last block."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser should not decay."""
        return {name for name, _ in self.named_parameters() if name.rsplit(".", 1)[-1] in NOT_DECAYED}

    def forward_features(self, images: Tensor) -> Tokens | Groups:
        """The tokens after the last block, before the final norm; in groups where not all images have equally many."""
        return self._blocks(self.embed(images), 0)

    def _blocks(self, tokens: Tokens, done: int, class_only: bool = False) -> Tokens | Groups:
        """The blocks after the first ``done``; with ``class_only`` the last one computes nothing but the class token."""
        reducer = self.reducer
        for number in range(done + 1, len(self.layers) + 1):
            if class_only and number == len(self.layers):
                return self.layers[-1](tokens, class_only=True)
            tokens = self.layers[number - 1](tokens, record=reducer is not None and reducer.reads_scan(number))
            if reducer is not None:
                reduced = reducer(tokens, number)
                if isinstance(reduced, Groups):
                    return reduced.map(partial(self._blocks, done=number, class_only=class_only))
                tokens = reduced
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """``(b c height width)`` -> logits ``(b num_classes)``."""
        class_only = self.class_token_count > 0 and getattr(self.reducer, "head_only", False)
        features = self._blocks(self.embed(images), 0, class_only)
        return features.join(self.forward_head) if isinstance(features, Groups) else self.forward_head(features)


Model = TypeVar("Model", bound=TokenModel)


def with_reducer(model: Model, reducer: Reducer | None) -> Model:
    """A shallow copy of the model, with the same parameters and another reducer."""
    twin = copy.copy(model)
    for table in ("_parameters", "_buffers", "_modules"):  # the copy's own tables, holding the same tensors and modules
        setattr(twin, table, dict(getattr(model, table)))
    twin._modules.pop("scorer", None)
    if isinstance(scorer := getattr(reducer, "scorer", None), nn.Module):
        twin.scorer = scorer  # so that a learned importance trains, moves and is saved with the model
    twin.reducer = reducer
    return twin
