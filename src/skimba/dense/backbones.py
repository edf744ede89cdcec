"""Backbones of dense models: models without a head whose features are maps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from skimba.models import TokenModel
from skimba.models.features import Part, join, start_parts, token_map
from skimba.tokens import Restore, Tokens

__all__ = ["DenseBackbone", "Part", "join", "token_map"]


class DenseBackbone(TokenModel):
    """A model without a head whose features are maps.

    Attributes:
        beside: names of modules that stand beside the blocks, and that a reducer does not make cheaper.
        channels: of each map.
        strides: of each map, in pixels.
        restore: how positions without a token are shown: a key of :data:`skimba.tokens.RESTORE`, or a function like those in it.
    """

    beside: frozenset[str] = frozenset()
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    restore: str | Callable[[], Restore] = "auto"

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)`` -> maps ``(b d h w)``, the finest first."""
        raise NotImplementedError

    def read(self, tokens: Tokens) -> Tensor:
        """``(b d)``: the mean over the tokens."""
        return tokens.stream.mean(1)

    def get_classifier(self) -> nn.Module:
        """There is no head."""
        return nn.Identity()

    def start(self, images: Tensor) -> list[Part]:
        """All tokens of a batch, as one part."""
        return start_parts(self.embed(images), self.restore)
