"""Vision Mamba (Vim): arXiv 2401.09417, github hustvl/Vim (``models_mamba.py``). Parameter names are the official ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from skimba.layers.mamba import VimMixer
from skimba.layers.mixer import Block, Mixer
from skimba.layers.patch_embed import PatchEmbed, fit_positions, in_the_middle, put_in
from skimba.models.base import PatchModel
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
from skimba.ops import add_rms_norm
from skimba.tokens import NONE, Layout, Tokens

NORM_EPS = 1e-5


class VimBlock(Block):
    """``residual <- residual + x;  x <- mixer(norm(residual))``: pre-norm, the residual stream in float32."""

    def __init__(self, embed_dim: int, mixer: Mixer, drop_path: float = 0.0) -> None:
        super().__init__()
        self.mixer: Mixer = mixer
        self.norm = nn.RMSNorm(embed_dim, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tokens, record: bool = False, extras_only: bool = False) -> Tokens:
        """All tokens after the block, or the extra ones alone."""
        normed, residual = add_rms_norm(tokens.x, tokens.residual, self.norm.weight, NORM_EPS)
        layout = tokens.layout
        mixed, scan = self.mixer(normed, layout, record, extras_only)
        after = Tokens(normed, layout, residual)
        if extras_only:
            after = after.keep(tokens.extra_places, None, layout.alignment)
        return replace(after, x=self.drop_path(mixed), scan=scan)


def init_weights(layers: nn.ModuleList, head: nn.Module, embeddings: Iterable[nn.Parameter]) -> None:
    """Fresh weights of a model of such blocks."""
    for parameter in embeddings:
        nn.init.trunc_normal_(parameter, std=0.02)
    if isinstance(head, nn.Linear):
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
    with torch.no_grad():  # as GPT-2: the residual stream's variance must not grow with depth
        for name, parameter in layers.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.div_(len(layers) ** 0.5)


class VisionMamba(PatchModel):
    """Vim with a class token in the middle of the sequence, which the head reads.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``. Other sizes run too: positions are resized.
        patch_size: side of a patch in pixels.
        stride: distance of patches in pixels; ``patch_size`` if None.
        in_chans: image channels.
        embed_dim: model width.
        depth: number of blocks.
        num_classes: size of the head.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        global_pool: what the head reads: ``"token"``, ``"avg"``, ``"max"`` or ``""`` (all tokens).
        drop_rate: dropout before the head.
    """

    family = "Vim"
    parts = PartNames("layers", "norm_f", "head", "patch_embed.proj", "patch_embed.proj")
    class_token_count = 1
    position_extras = staticmethod(in_the_middle)
    patches: type[PatchEmbed] = PatchEmbed
    halved = True  # the mean of the two directions goes on

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        stride: int | None = None,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 24,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        global_pool: str = "token",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(img_size, in_chans, embed_dim, num_classes, global_pool, drop_rate)
        self.patch_embed = self.patches(patch_size, stride or patch_size, in_chans, embed_dim)
        self.grid = self.patch_embed.grid(*self.img_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + 1, embed_dim))
        rates = linear_drop_path(drop_path_rate, depth)
        self.layers = nn.ModuleList(
            VimBlock(embed_dim, VimMixer(embed_dim, halved=self.halved), rate) for rate in rates
        )
        self.norm_f = nn.RMSNorm(embed_dim, eps=NORM_EPS)
        self.head = classifier(embed_dim, num_classes)
        init_weights(self.layers, self.head, (self.cls_token, self.pos_embed))

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens, the class token at its place."""
        check_images(images, self.in_chans, self.patch_embed.patch_size)
        patches = self.patch_embed(images)  # (b h w d)
        grid = (patches.shape[1], patches.shape[2])
        extras = self.position_extras(grid[0] * grid[1])
        x = put_in(patches.flatten(1, 2), self.cls_token.expand(images.shape[0], -1, -1), extras)
        x = x + fit_positions(self.pos_embed, self.grid, grid, self.position_extras)
        return Tokens(x, Layout(grid, extras, alignment=NONE, device=x.device))


def _hub(size: str, name: str) -> HubFile:
    return HubFile(f"hustvl/Vim-{size}-midclstok", name)


# Zhan et al. give schedules for Vim-T (1.24 G by the published convention; their table says 1.29) and Vim-S (3.57 G). Vim-B takes
# that of Vim-S (13.2 G, where R-MeeTo's published comparison stands).
_NARROW = {10: 0.8, 20: 0.8}
_WIDE = {5: 0.8, 10: 0.8, 15: 0.8}
VARIANTS = {
    "vim_tiny_patch16_224": Variant(
        VisionMamba,
        {"embed_dim": 192, "depth": 24},
        _hub("tiny", "vim_t_midclstok_76p1acc.pth"),
        "7 M parameters, 1.45 G published FLOPs, 76.1 % ImageNet top-1 (paper).",
        paper_schedule=_NARROW,
    ),
    "vim_small_patch16_224": Variant(
        VisionMamba,
        {"embed_dim": 384, "depth": 24},
        _hub("small", "vim_s_midclstok_80p5acc.pth"),
        "26 M parameters, 5.08 G published FLOPs, 80.5 % ImageNet top-1 (paper).",
        paper_schedule=_WIDE,
    ),
    "vim_base_patch16_224": Variant(
        VisionMamba,
        {"embed_dim": 768, "depth": 24},
        _hub("base", "vim_b_midclstok_81p9acc.pth"),
        "98 M parameters, 18.87 G published FLOPs, 81.9 % ImageNet top-1 (paper).",
        paper_schedule=_WIDE,
    ),
    "vim_tiny_patch16_stride8_224": Variant(
        VisionMamba,
        {"stride": 8, "embed_dim": 192, "depth": 24},
        _hub("tiny", "vim_t_midclstok_ft_78p3acc.pth"),
        "Vim-T with overlapping patches (729 tokens), 7 M parameters, 78.3 % ImageNet top-1 (official repository).",
        paper_schedule=_NARROW,
    ),
    "vim_small_patch16_stride8_224": Variant(
        VisionMamba,
        {"stride": 8, "embed_dim": 384, "depth": 24},
        _hub("small", "vim_s_midclstok_ft_81p6acc.pth"),
        "Vim-S with overlapping patches (729 tokens), 26 M parameters, 81.6 % ImageNet top-1 (official repository).",
        paper_schedule=_WIDE,
    ),
    "vim_micro": Variant(
        VisionMamba,
        MICRO,
        "vim_micro.safetensors",
        "196 tokens of Fashion-MNIST (28 px, patch 2, one channel); weights come with the package.",
        FASHION,
    ),
    "vim_micro_patch4_56": Variant(
        VisionMamba,
        MICRO_SCENES,
        "vim_micro_patch4_56.safetensors",
        "196 tokens of a fashion scene (56 px, patch 4, three channels); weights come with the package.",
        SCENES,
    ),
}
