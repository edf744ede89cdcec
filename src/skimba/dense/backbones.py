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

    def maps(self, x: Tensor) -> list[Tensor]:
        """:meth:`forward_maps`, corrected where the model's pruning has corrections: what heads read."""
        maps = self.forward_maps(x)
        if self.corrections is None:
            return maps
        return [_cells_first(one(_cells_last(map_))) for one, map_ in zip(self.corrections, maps, strict=True)]

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each of the maps."""
        return self.channels

    def read_features(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)`` -> maps ``(b h w d)``."""
        return [_cells_last(one) for one in self.maps(x)]

    def read(self, tokens: Tokens) -> Tensor:
        """``(b d)``: the mean over the tokens."""
        return tokens.stream.mean(1)

    def get_classifier(self) -> nn.Module:
        """There is no head."""
        return nn.Identity()

    def start(self, images: Tensor) -> list[Part]:
        """All tokens of a batch, as one part."""
        return start_parts(self.embed(images), self.restore)


def _cells_last(map_: Tensor) -> Tensor:
    return map_.permute(0, 2, 3, 1)


def _cells_first(cells: Tensor) -> Tensor:
    return cells.permute(0, 3, 1, 2)
