"""LocalVim: arXiv 2403.09338, github hunto/LocalMamba. Parameter names are the official ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skimba.layers.local_mamba import LocalMixer
from skimba.layers.patch_embed import PatchEmbed, fit_positions, in_the_middle, no_extras, put_in
from skimba.models.base import PatchModel
from skimba.models.timm_model import PartNames, classifier
from skimba.models.variants import Variant, WebFile, check_images, linear_drop_path
from skimba.models.vim import NORM_EPS, VimBlock, init_weights
from skimba.tokens import NONE, Layout, Tokens, take

TRAINED_GRID, BASE = 14, 10000.0  # of the rotary angles


class Rotary(nn.Module):
    """Rotary position embedding over a grid: half of the channels by row, half by column; pairs are neighbours."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, grid: tuple[int, int], embed_dim: int) -> None:
        super().__init__()
        self.grid = grid
        half = embed_dim // 2
        frequency = BASE ** (-torch.arange(0, half, 2)[: half // 2].float() / half)
        row, column = (
            (torch.arange(size) / size * TRAINED_GRID)[:, None] * frequency for size in grid
        )  # (h half/2), (w half/2)
        row, column = (part.repeat_interleave(2, -1) for part in (row, column))
        angle = torch.cat([row[:, None].expand(-1, grid[1], -1), column[None].expand(grid[0], -1, -1)], -1).flatten(
            0, 1
        )
        self.register_buffer("freqs_cos", angle.cos())
        self.register_buffer("freqs_sin", angle.sin())

    def turn(self, tokens: Tokens) -> Tokens:
        """Both streams, turned by the angles of each token's position.

        compat: at another grid cosines and sines are resized, and are no rotation any more.
        """
        target = (tokens.grid[0], tokens.grid[1])
        cos, sin = (
            fit_positions(table[None], self.grid, target, no_extras) for table in (self.freqs_cos, self.freqs_sin)
        )
        if tokens.layout.position is not None:
            batch = tokens.x.shape[0]
            cos, sin = (take(table.expand(batch, -1, -1), tokens.position) for table in (cos, sin))
        residual = None if tokens.residual is None else _turned(tokens.residual, cos, sin)
        return replace(tokens, x=_turned(tokens.x, cos, sin), residual=residual)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    across = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    return (x * cos + across * sin).to(x.dtype)


Plan = tuple[tuple[str, ...], ...]
_NAMES = {"h": "rows", "v": "columns", "w2": "windows2", "w7": "windows7"}


def official_walks(lines: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Walks by their official names (``"h v_flip w7 w7_flip"`` for each block), as keys of WALKS."""
    return tuple(
        tuple(_NAMES[name.removesuffix("_flip")] + "_back" * name.endswith("_flip") for name in line.split())
        for line in lines
    )


# Found by the authors' search (tiny models); the same in all blocks (small: the later of two official definitions, which wins).
PLANS: dict[str, Plan] = {
    "searched": official_walks(
        [
            "h v_flip w7 w7_flip",
            "h_flip w2_flip w7 w7_flip",
            "h h_flip v w7",
            *["h h_flip v v_flip"] * 3,
            "h_flip v v_flip w7",
            "h_flip v v_flip w2_flip",
            *["h h_flip v v_flip"] * 2,
            "h v v_flip w2",
            "h v v_flip w2_flip",
            "h h_flip v_flip w7",
            "h_flip v v_flip w2",
            "h h_flip v v_flip",
            "h v w2 w2_flip",
            "v v_flip w2 w7",
            "h h_flip v w2",
            "h h_flip w2_flip w7",
            "v v_flip w2 w2_flip",
        ]
    ),
    "windows2": official_walks(["h h_flip w2 w2_flip"] * 20),
}


class LocalVimBlock(VimBlock):
    """As Vim's, its streams turned first where there is a rotary embedding."""

    rope: Rotary | None

    def __init__(self, embed_dim: int, mixer: LocalMixer, drop_path: float, rope: Rotary | None) -> None:
        super().__init__(embed_dim, mixer, drop_path)
        object.__setattr__(self, "rope", rope)  # not a part of the block: its buffers are the model's, under one name

    def forward(self, tokens: Tokens, record: bool = False, extras_only: bool = False) -> Tokens:
        """All tokens after the block, or the extra ones alone."""
        return super().forward(tokens if self.rope is None else self.rope.turn(tokens), record, extras_only)


class LocalVim(PatchModel):
    """Blocks of four walks each, in windows too. Either a class token in the middle, which the head reads, or none: then the
    streams are turned by their positions before every block, and the head reads the mean.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``. Other sizes run too: positions are resized.
        patch_size: side of a patch in pixels; images are padded with zeros below and right to whole patches.
        in_chans: image channels.
        embed_dim: model width.
        walks: a key of :data:`PLANS`, or for each block four keys of :data:`skimba.tokens.walks.WALKS`.
        depth: number of blocks: the first so many of them; all if None.
        class_token: whether there is one.
        num_classes: size of the head.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        global_pool: what the head reads; None: the class token, or the mean.
        drop_rate: dropout before the head.
    """

    family = "LocalVim"
    parts = PartNames("layers", "norm_f", "head", "patch_embed.proj", "patch_embed.proj")
    class_token_count = 0
    fixed_by_grid = frozenset({"rope.freqs_cos", "rope.freqs_sin"})

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 192,
        walks: str | Plan = "searched",
        depth: int | None = None,
        class_token: bool = False,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
    ) -> None:
        self.class_token_count = int(class_token)
        if global_pool is None:
            global_pool = "token" if class_token else "avg"
        super().__init__(img_size, in_chans, embed_dim, num_classes, global_pool, drop_rate)
        plan = (PLANS[walks] if isinstance(walks, str) else walks)[:depth]
        self.position_extras = in_the_middle if class_token else no_extras
        self.patch_embed = PatchEmbed(patch_size, patch_size, in_chans, embed_dim)
        self.grid = self.patch_embed.grid(*(size + -size % patch_size for size in self.img_size))
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + class_token, embed_dim))
        self.rope = None if class_token else Rotary(self.grid, embed_dim)
        rates = linear_drop_path(drop_path_rate, len(plan))
        mixers = [LocalMixer(embed_dim, names) for names in plan]
        pairs = zip(mixers, rates, strict=True)
        self.layers = nn.ModuleList(LocalVimBlock(embed_dim, mixer, rate, self.rope) for mixer, rate in pairs)
        self.norm_f = nn.RMSNorm(embed_dim, eps=NORM_EPS)
        self.head = classifier(embed_dim, num_classes)
        embeddings = [self.pos_embed] if self.cls_token is None else [self.pos_embed, self.cls_token]
        init_weights(self.layers, self.head, embeddings)

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens."""
        check_images(images, self.in_chans, self.patch_size)
        height, width = images.shape[-2:]
        patches = self.patch_embed(F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size)))
        grid = (patches.shape[1], patches.shape[2])
        extras = self.position_extras(grid[0] * grid[1])
        x = patches.flatten(1, 2)  # (b h*w d)
        if self.cls_token is not None:
            x = put_in(x, self.cls_token.expand(images.shape[0], -1, -1), extras)
        x = x + fit_positions(self.pos_embed, self.grid, grid, self.position_extras)
        return Tokens(x, Layout(grid, extras, alignment=NONE, device=x.device))


_TINY: dict[str, Any] = {"embed_dim": 192, "walks": "searched", "depth": 20}
_RELEASE = "https://github.com/hunto/LocalMamba/releases/download/v1.0.0/"
VARIANTS = {
    "local_vim_tiny_patch16_224": Variant(
        LocalVim,
        _TINY,
        WebFile(_RELEASE + "local_vim_tiny.ckpt"),
        "8 M parameters, mean of all tokens, 76.2 % ImageNet top-1 (repository).",
    ),
    "local_vim_tiny_middle_patch16_224": Variant(
        LocalVim,
        {**_TINY, "class_token": True},
        WebFile(_RELEASE + "local_vim_tiny_middle_cls_token.ckpt"),
        "8 M parameters, class token in the middle, 77.8 % ImageNet top-1 (repository).",
    ),
    "local_vim_small_patch16_224": Variant(
        LocalVim,
        {"embed_dim": 384, "walks": "windows2", "depth": 20},
        None,
        "28 M parameters, mean of all tokens, 81.1 % ImageNet top-1 (repository, which links no weights of it).",
    ),
}
