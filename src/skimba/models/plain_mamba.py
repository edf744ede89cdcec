"""PlainMamba: arXiv 2403.17695, github ChenhongyiYang/PlainMamba. Parameter names are those of the official checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from skimba.layers.alignment import align_grid
from skimba.layers.mamba import PlainMambaMixer
from skimba.layers.mixer import Block
from skimba.layers.patch_embed import ConvStem, fit_positions, no_extras
from skimba.models.base import TokenModel
from skimba.models.timm_model import PartNames, classifier
from skimba.models.variants import (
    FASHION,
    MICRO,
    MICRO_SCENES,
    SCENES,
    HubFile,
    Variant,
    check_images,
    linear_drop_path,
)
from skimba.tokens import NONE, Layout, Tokens


class PlainMambaBlock(Block):
    """``x <- x + mamba(norm(x))``, then, in a few blocks, a depthwise convolution over the grid with BatchNorm and GELU."""

    def __init__(self, embed_dim: int, drop_path: float = 0.0, with_dwconv: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        self.mamba = PlainMambaMixer(embed_dim)
        self.drop_path = DropPath(drop_path)
        self.dw: nn.Sequential | None = None
        if with_dwconv:
            conv = nn.Conv2d(embed_dim, embed_dim, 3, padding=1, groups=embed_dim, bias=False)
            self.dw = nn.Sequential(conv, nn.BatchNorm2d(embed_dim), nn.GELU())

    @property
    def mixer(self) -> PlainMambaMixer:  # type: ignore[override]
        """``mamba``, by the name that all blocks share."""
        return self.mamba

    def forward(self, tokens: Tokens, record: bool = False) -> Tokens:
        mixed, scan = self.mamba(self.norm(tokens.x), tokens.layout, record)
        x = tokens.x + self.drop_path(mixed)
        if self.dw is not None:
            x = align_grid(tokens.layout, x, self._depthwise)
        return Tokens(x, tokens.layout, scan=scan)

    def _depthwise(self, grid: Tensor) -> Tensor:
        assert self.dw is not None
        return self.dw(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def raster_tokens(images: Tensor, stem: ConvStem, pos_embed: Tensor, grid: tuple[int, ...], in_chans: int) -> Tokens:
    """All tokens of images ``(b in_chans height width)``, in raster order; ``pos_embed`` is for ``grid``."""
    check_images(images, in_chans, stem.patch_size)
    patches = stem(images)  # (b h w d)
    found = (patches.shape[1], patches.shape[2])
    x = patches.flatten(1, 2) + fit_positions(pos_embed, grid, found, no_extras)
    return Tokens(x, Layout(found, alignment=NONE, device=x.device))


class _Backbone(nn.Module):
    """The parameters under the official prefix ``backbone.``."""

    def __init__(self, stem: ConvStem, positions: int, embed_dim: int, blocks: list[PlainMambaBlock]) -> None:
        super().__init__()
        self.patch_embed = stem
        self.pos_embed = nn.Parameter(torch.empty(1, positions, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.layers = nn.ModuleList(blocks)
        self.ln1 = nn.LayerNorm(embed_dim, eps=1e-6)


class _Head(nn.Module):
    """The parameters under the official prefix ``head.``."""

    def __init__(self, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = classifier(embed_dim, num_classes)


class PlainMamba(TokenModel):
    """PlainMamba: no class token, the head reads the mean over all tokens.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``. Other sizes run too: positions are resized.
        patch_size: side of a patch in pixels, even (the stem halves the image first).
        in_chans: image channels.
        embed_dim: model width.
        depth: number of blocks.
        stem_convs: 3×3 convolutions in the stem.
        dwconv_blocks: blocks (counted from 0, as in the official configurations) that a depthwise convolution follows.
        num_classes: size of the head.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        global_pool: what the head reads: ``"avg"``, ``"max"`` or ``""`` (all tokens).
        drop_rate: dropout before the head.
    """

    parts = PartNames(
        "backbone.layers", "backbone.ln1", "head.fc", "backbone.patch_embed.stem.0", "backbone.patch_embed.projection"
    )
    class_token_count = 0

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 24,
        stem_convs: int = 1,
        dwconv_blocks: Sequence[int] = (),
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(img_size, in_chans, embed_dim, num_classes, global_pool, drop_rate)
        stem = ConvStem(patch_size, in_chans, embed_dim, stem_convs)
        self.grid = stem.grid(*self.img_size)
        rates = linear_drop_path(drop_path_rate, depth)
        blocks = [PlainMambaBlock(embed_dim, rate, i in dwconv_blocks) for i, rate in enumerate(rates)]
        self.backbone = _Backbone(stem, self.grid[0] * self.grid[1], embed_dim, blocks)
        self.head = _Head(embed_dim, num_classes)

    @property
    def layers(self) -> nn.ModuleList:  # type: ignore[override]
        """The blocks."""
        return self.backbone.layers

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.backbone.patch_embed.patch_size

    @property
    def patch_stride(self) -> int:
        """Distance of patches in pixels."""
        return self.patch_size

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens, in raster order."""
        return raster_tokens(images, self.backbone.patch_embed, self.backbone.pos_embed, self.grid, self.in_chans)


_HUB = "ChenhongyiYang/PlainMamba"
# The paper (Zhan et al.) gives no schedule: this one comes to 8.43 G for L3, where its table has 8.44.
_SCHEDULE = {5: 0.725, 10: 0.725, 15: 0.725}
VARIANTS = {
    "plain_mamba_l1": Variant(
        PlainMamba,
        {"embed_dim": 192, "depth": 24, "stem_convs": 1, "dwconv_blocks": (0,)},
        HubFile(_HUB, "l1.pth"),
        "7 M parameters, 3.0 G published FLOPs, 77.9 % ImageNet top-1 (paper).",
        paper_schedule=_SCHEDULE,
    ),
    "plain_mamba_l2": Variant(
        PlainMamba,
        {"embed_dim": 384, "depth": 24, "stem_convs": 2},
        HubFile(_HUB, "l2.pth"),
        "25 M parameters, 8.1 G published FLOPs, 81.6 % ImageNet top-1 (paper).",
        paper_schedule=_SCHEDULE,
    ),
    "plain_mamba_l3": Variant(
        PlainMamba,
        {"embed_dim": 448, "depth": 36, "stem_convs": 2},
        HubFile(_HUB, "l3.pth"),
        "50 M parameters, 14.4 G published FLOPs, 82.3 % ImageNet top-1 (paper).",
        paper_schedule=_SCHEDULE,
    ),
    "plain_mamba_micro": Variant(
        PlainMamba,
        MICRO,
        "plain_mamba_micro.safetensors",
        "196 tokens of Fashion-MNIST (28 px, patch 2, one channel); weights come with the package.",
        FASHION,
    ),
    "plain_mamba_micro_patch4_56": Variant(
        PlainMamba,
        MICRO_SCENES,
        "plain_mamba_micro_patch4_56.safetensors",
        "196 tokens of a fashion scene (56 px, patch 4, three channels); weights come with the package.",
        SCENES,
    ),
}
