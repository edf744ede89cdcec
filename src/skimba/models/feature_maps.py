"""timm's ``features_only``: a model whose result is a list of maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from timm.models import FeatureInfo
from torch import Tensor, nn

from skimba.models.base import TokenModel
from skimba.models.features import FORMATS
from skimba.tokens import Restore


class FeatureMaps(nn.Module):
    """A model that gives a list of maps. It takes another model and removes from it what the maps do not need.

    Args:
        model: a skimba model, dense or pruned.
        out_indices: after which blocks, counted from 0, or from the end where negative; an int: so many last ones.
        norm: apply the final norm to each map.
        output_fmt: a key of :data:`skimba.models.features.FORMATS`.
        restore: as ``forward_intermediates`` takes it.

    Attributes:
        feature_info: timm's, of these maps.
    """

    def __init__(
        self,
        model: TokenModel,
        out_indices: int | Sequence[int] = 4,
        norm: bool = False,
        output_fmt: str = "NCHW",
        restore: str | Callable[[], Restore] = "auto",
    ) -> None:
        super().__init__()
        if output_fmt not in FORMATS:
            raise ValueError(f"unknown output_fmt {output_fmt!r}; known: {', '.join(FORMATS)}")
        self.out_indices = model.prune_intermediate_layers(out_indices, prune_norm=not norm)
        self.feature_info = FeatureInfo(model.feature_info, tuple(self.out_indices))
        self.model = model
        self.norm, self.output_fmt, self.restore = norm, output_fmt, restore
        self.pretrained_cfg = self.default_cfg = model.pretrained_cfg

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)`` -> maps."""
        return self.model.forward_intermediates(
            x,
            self.out_indices,
            norm=self.norm,
            output_fmt=self.output_fmt,
            intermediates_only=True,
            restore=self.restore,
        )
