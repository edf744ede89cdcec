"""PlainMamba as a backbone of dense models. Parameter names are those of the official detectors and segmenters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skimba.dense.adapter import Interaction, SpatialPrior, flatten_maps, split_maps
from skimba.dense.backbones import DenseBackbone, Part, join, token_map
from skimba.dense.uper_head import resize_map
from skimba.layers.deformable import Grid, centres
from skimba.models.plain_mamba import PlainMamba, raster_tokens
from skimba.tokens import Tokens

ADAPTER_STRIDES = (4, 8, 16, 32)
STAGES = 4  # the depth in equal parts: interactions of the adapter, maps of a segmenter
NORM_EPS = 1e-6


class PlainMambaTrunk(DenseBackbone):
    """A classifier's stem, positions and blocks, without the ``backbone.`` before their names.

    Args:
        model: the classifier; its parts are taken, not copied.
    """

    class_token_count = 0

    def __init__(self, model: PlainMamba) -> None:
        super().__init__(model.img_size, model.in_chans, model.num_features, 0)
        self.grid, self.pretrained_cfg = model.grid, model.pretrained_cfg
        self.paper_schedule = model.paper_schedule
        self.patch_embed = model.backbone.patch_embed
        self.pos_embed = model.backbone.pos_embed
        self.layers = model.backbone.layers

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embed.patch_size

    @property
    def patch_stride(self) -> int:
        """Distance of patches in pixels."""
        return self.patch_size

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens, in raster order."""
        return raster_tokens(images, self.patch_embed, self.pos_embed, self.grid, self.in_chans)

    def stage_ends(self) -> list[int]:
        """The last block of each of the stages (1-based)."""
        return [(stage + 1) * len(self.layers) // STAGES for stage in range(STAGES)]


class PlainMambaStages(PlainMambaTrunk):
    """The tokens after each quarter of the depth, each with a norm of its own, as maps of one stride: what UperNet reads."""

    def __init__(self, model: PlainMamba) -> None:
        super().__init__(model)
        width = self.num_features
        for end in self.stage_ends()[:-1]:
            self.add_module(
                f"norm_layer{end - 1}", nn.LayerNorm(width, eps=NORM_EPS)
            )  # compat: the block counts from 0
        self.ln1 = model.backbone.ln1
        self.channels, self.strides = (width,) * STAGES, (self.patch_size,) * STAGES

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)``, any size -> four maps ``(b d h w)``."""
        parts, done, maps = self.start(x), 0, []
        *early, _ = self.stage_ends()
        norms: list[nn.Module] = [*(self.get_submodule(f"norm_layer{end - 1}") for end in early), self.ln1]
        for end, norm in zip(self.stage_ends(), norms, strict=True):
            parts, done = self.run(parts, done + 1, end), end
            maps.append(token_map(parts, norm))
        return maps


class PlainMambaAdapter(PlainMambaTrunk):
    """PlainMamba with ViT-Adapter beside it: maps of strides 4, 8, 16 and 32.

    Where tokens were removed, the injector serves those that are there, at their own positions, and an extractor projects each
    distinct value of the restored grid once. The maps never shrink.

    Args:
        model: a classifier.
        prior_width: channels of the spatial prior's first convolutions.
        heads: of the deformable attention.
        points: that a head reads on a map.
        ffn_ratio: hidden width of an extractor's feed-forward, in model widths.
        drop_path: stochastic depth in the extractors.
    """

    beside = frozenset({"spm", "interactions", "up"})

    def __init__(
        self,
        model: PlainMamba,
        prior_width: int = 64,
        heads: int = 6,
        points: int = 4,
        ffn_ratio: float = 0.25,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(model)
        width = self.num_features
        self.channels, self.strides = (width,) * 4, ADAPTER_STRIDES
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.spm = SpatialPrior(self.in_chans, prior_width, width)
        self.interactions = nn.Sequential(
            *[
                Interaction(width, heads, points, ffn_ratio, drop_path, 2 if stage == STAGES - 1 else 0)
                for stage in range(STAGES)
            ]
        )
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.ad_norm1, self.ad_norm2, self.ad_norm3, self.ad_norm4 = (nn.BatchNorm2d(width) for _ in range(4))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser should not decay."""
        return super().no_weight_decay() | {"level_embed"}

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """``(b c height width)``, sides multiples of 32 -> four maps ``(b d h w)``."""
        finest, *levels = self.spm(x)
        grids: list[Grid] = [(level.shape[2], level.shape[3]) for level in levels]
        levels = [level + mark[:, None, None] for level, mark in zip(levels, self.level_embed, strict=True)]
        cells, parts, done = flatten_maps(levels), self.start(x), 0
        for end, interaction in zip(self.stage_ends(), self.interactions, strict=True):
            assert isinstance(interaction, Interaction)
            parts = [self._inject(interaction, part, cells, grids) for part in parts]
            parts, done = self.run(parts, done + 1, end), end
            cells = self._extract(interaction, parts, cells, grids)
        second, third, fourth = split_maps(cells, grids)
        tokens = token_map(parts, nn.Identity())
        maps = [self.up(second) + finest, second, third, fourth]
        norms = (self.ad_norm1, self.ad_norm2, self.ad_norm3, self.ad_norm4)
        return [norm(one + resize_map(tokens, one.shape[2:])) for norm, one in zip(norms, maps, strict=True)]

    def _inject(self, interaction: Interaction, part: Part, cells: Tensor, grids: list[Grid]) -> Part:
        tokens = part.tokens
        reference = centres((tokens.grid[0], tokens.grid[1]), cells.device)
        if tokens.layout.position is not None:
            reference = reference[tokens.layout.position]
        x = interaction.injector(tokens.x, reference, cells[part.rows], grids)
        return Part(part.rows, Tokens(x, tokens.layout), part.restore)

    def _extract(self, interaction: Interaction, parts: list[Part], cells: Tensor, grids: list[Grid]) -> Tensor:
        reference = torch.cat([centres(grid, cells.device) for grid in grids])

        def read(part: Part) -> Tensor:
            shown, out = part.shown(), cells[part.rows]
            height, width = part.tokens.grid
            for extractor in interaction.extractors:
                out = extractor(out, reference, grids, shown.values, shown.index, (height, width))
            return out

        return join(parts, read)
