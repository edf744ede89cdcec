"""What every model is: image -> tokens -> blocks, with one reducer between them -> head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from skimba.models.sharing import SharedWeights, shared_twin
from skimba.tokens import Groups, Tokens

# Last parts of the names of parameters without weight decay: rates and skips of the recurrence, and what marks tokens.
NOT_DECAYED = frozenset({"A_log", "A_b_log", "D", "D_b", "direction_Bs", "pos_embed", "cls_token"})


@runtime_checkable
class Reducer(Protocol):
    """What a model calls after each block, if it was given one. A class that derives from this one inherits the plain answers."""

    @property
    def head_only(self) -> bool:
        """Whether, for logits, the last block computes only what the head reads; the reducer is not called after it then."""
        return False

    @property
    def counts_by_image(self) -> bool:
        """Whether the images of a batch may keep different numbers of tokens, so that FLOPs depend on the images."""
        return False

    @property
    def scorer(self) -> nn.Module | None:
        """A learned part. The model owns it too: it trains, moves and is saved with the model, under the name ``scorer``."""
        return None

    def reads_scan(self, block: int) -> bool:
        """Whether the reducer wants ``tokens.scan`` of that block (1-based)."""
        return False

    def __call__(self, tokens: Tokens, block: int) -> Tokens | Groups:
        """The tokens that go on to the next block; in groups where not all images keep equally many."""
        ...


REDUCER_MEMBERS = ("head_only", "counts_by_image", "scorer", "reads_scan", "__call__")


class TokenModel(SharedWeights):
    """The way of an image through a model.

    A model defines ``embed`` (images to tokens), ``layers`` (the blocks), ``forward_head`` (tokens to logits) and the ``grid``
    that its positions are for.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``.
        in_chans: image channels.
        embed_dim: model width.
        num_classes: size of the head.

    Attributes:
        head_parts: names of the modules that only ``forward_head`` uses.
        paper_schedule: ``{blocks: share of the tokens kept}`` as the paper prunes this model; None if no paper does.
        pretrained_cfg: timm's: how the weights expect pictures; and ``architecture`` and ``sizes`` as create_model was asked.
        task: what the model is for: a key of :data:`skimba.tasks.TASKS`.
    """

    task = "classification"

    class_token_count: int
    head_parts: tuple[str, ...] = ()
    layers: nn.ModuleList
    grid: tuple[int, int]

    def __init__(self, img_size: int | tuple[int, int], in_chans: int, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, embed_dim
        self.pretrained_cfg: dict[str, Any] = {}
        self.reducer: Reducer | None = None
        self.paper_schedule: Mapping[int, float] | None = None

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        raise NotImplementedError

    @property
    def patch_stride(self) -> int:
        """Distance of patches in pixels; less than their side where they overlap."""
        raise NotImplementedError

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

    def _blocks(self, tokens: Tokens, done: int, extras_only: bool = False) -> Tokens | Groups:
        """The blocks after the first ``done``; with ``extras_only`` the last one computes nothing but the extra tokens."""
        reducer = self.reducer
        for number in range(done + 1, len(self.layers) + 1):
            if extras_only and number == len(self.layers):
                return self.layers[-1](tokens, extras_only=True)
            tokens = self.layers[number - 1](tokens, record=reducer is not None and reducer.reads_scan(number))
            if reducer is not None:
                reduced = reducer(tokens, number)
                if isinstance(reduced, Groups):
                    return reduced.map(partial(self._blocks, done=number, extras_only=extras_only))
                tokens = reduced
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """``(b c height width)`` -> logits ``(b num_classes)``."""
        extras_only = self.class_token_count > 0 and self.reducer is not None and self.reducer.head_only
        features = self._blocks(self.embed(images), 0, extras_only)
        return features.join(self.forward_head) if isinstance(features, Groups) else self.forward_head(features)


Model = TypeVar("Model", bound=TokenModel)


def with_reducer(model: Model, reducer: Reducer | None) -> Model:
    """A model with the same weights and another reducer; the one given stays as it is (see :func:`shared_twin`).

    Raises:
        TypeError: ``reducer`` lacks a part of the protocol.
    """
    if reducer is not None and not isinstance(reducer, Reducer):
        missing = [name for name in REDUCER_MEMBERS if not hasattr(reducer, name)]
        raise TypeError(
            f"a reducer has {', '.join(REDUCER_MEMBERS)}; {type(reducer).__name__} has no {', '.join(missing)}"
        )
    twin = shared_twin(model)
    twin._modules.pop("scorer", None)
    if reducer is not None and reducer.scorer is not None:
        twin.scorer = reducer.scorer
    twin.reducer = reducer
    return twin
