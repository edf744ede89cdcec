"""Any skimba model as a backbone of dense models: the grid of its tokens as maps of one stride, extra tokens left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from skimba.dense.backbones import DenseBackbone, token_map
from skimba.models import TokenModel
from skimba.tokens import Tokens

STAGES = 4  # the depth in equal parts


class TokenMaps(DenseBackbone):
    """The residual stream after some blocks, each with a LayerNorm of its own, as maps ``(b d h w)`` of one stride.

    Where patches overlap, the picture is first padded so that every cell of a map stands in the middle of its pixels.

    Args:
        model: a classifier; it is taken, not copied, and loses its head and the blocks after the last end.
        ends: the blocks (1-based) after which maps are read.
    """

    def __init__(self, model: TokenModel, ends: Sequence[int]) -> None:
        super().__init__(model.img_size, model.in_chans, model.num_features, 0)
        self.model = model
        # Parameters that nothing reads would get no gradient.
        model.prune_intermediate_layers([end - 1 for end in ends], prune_norm=True)
        self.class_token_count = model.class_token_count
        self.grid, self.pretrained_cfg = model.grid, model.pretrained_cfg
        self.paper_schedule = model.paper_schedule
        self.ends = tuple(ends)
        self.channels = (model.num_features,) * len(self.ends)
        self.strides = (model.patch_stride,) * len(self.ends)
        self.norms = nn.ModuleList(nn.LayerNorm(model.num_features) for _ in self.ends)
        self.margin = (model.patch_size - model.patch_stride) // 2

    @property
    def layers(self) -> nn.ModuleList:  # type: ignore[override]
        """The blocks."""
        return self.model.layers

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.model.patch_size

    @property
    def patch_stride(self) -> int:
        """Distance of patches in pixels."""
        return self.model.patch_stride

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens."""
        return self.model.embed(F.pad(images, (self.margin,) * 4))

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)`` -> a map ``(b d h w)`` for each of the ends."""
        parts, done, maps = self.start(x), 0, []
        for end, norm in zip(self.ends, self.norms, strict=True):
            parts, done = self.run(parts, done + 1, end), end
            maps.append(token_map(parts, _in_dtype_of(norm)))
        return maps


def _in_dtype_of(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """The norm of a stream that may be kept in float32."""
    dtype = next(norm.parameters()).dtype
    return lambda x: norm(x.to(dtype))


def stage_maps(model: TokenModel) -> TokenMaps:
    """Maps after each quarter of the depth: what UperNet reads."""
    depth = len(model.layers)
    return TokenMaps(model, [(stage + 1) * depth // STAGES for stage in range(STAGES)])


def last_map(model: TokenModel) -> TokenMaps:
    """One map after the last block: what a simple pyramid reads."""
    return TokenMaps(model, [len(model.layers)])
