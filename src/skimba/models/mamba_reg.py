"""Mamba-Reg: arXiv 2405.14858, github wangf3014/Mamba-Reg. Parameter names are the official ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from skimba.layers.mamba import VimMixer
from skimba.layers.patch_embed import PatchEmbed, fit_positions, no_extras, put_in
from skimba.models.base import PatchModel
from skimba.models.timm_model import PartNames, classifier
from skimba.models.variants import (
    IMAGENET,
    MICRO_SCENES,
    SCENES,
    HubFile,
    Variant,
    check_images,
    linear_drop_path,
)
from skimba.models.vim import NORM_EPS, VimBlock, init_weights
from skimba.tokens import NONE, Layout, Tokens, take


def register_positions(image_tokens: int, registers: int) -> tuple[int, ...]:
    """Where the registers stand: one after each ``image_tokens // (registers + 1)`` image tokens; what is left comes last.

    Raises:
        ValueError: there are fewer image tokens than that takes.
    """
    run = image_tokens // (registers + 1)
    if run == 0:
        raise ValueError(f"{registers} registers need at least {registers + 1} image tokens, got {image_tokens}")
    return tuple(run + number * (run + 1) for number in range(registers))


class MambaReg(PatchModel):
    """Vim with registers spread over the sequence, all of which the head reads.

    Args:
        img_size: side of the (square) images in pixels, or ``(height, width)``. Other sizes run too: positions are resized.
        patch_size: side of a patch in pixels.
        in_chans: image channels.
        embed_dim: model width.
        depth: number of blocks.
        registers: how many.
        reduction: the head reads each register at ``embed_dim / reduction`` channels.
        num_classes: size of the head.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        global_pool: what the head reads: ``"token"`` (the registers), ``"avg"``, ``"max"`` or ``""`` (all tokens).
        drop_rate: dropout before the head.
    """

    family = "Mamba-Reg"
    parts = PartNames("layers", "norm_f", "head", "patch_embed.proj", "patch_embed.proj")
    class_token_count = 12
    joined = 0  # width of all registers side by side, as the head reads them
    position_extras = staticmethod(no_extras)

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 24,
        registers: int = 12,
        reduction: int = 1,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        global_pool: str = "token",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(img_size, in_chans, embed_dim, num_classes, global_pool, drop_rate)
        if embed_dim % reduction:
            raise ValueError(f"reduction must divide embed_dim {embed_dim}, got {reduction}")
        self.class_token_count = registers
        self.patch_embed = PatchEmbed(patch_size, patch_size, in_chans, embed_dim)
        self.grid = self.patch_embed.grid(*self.img_size)
        register_positions(self.grid[0] * self.grid[1], registers)  # raises where they do not fit
        self.cls_token = nn.Parameter(torch.empty(1, registers, embed_dim))
        self.pos_embed_cls = nn.Parameter(torch.empty(1, registers, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], embed_dim))
        rates = linear_drop_path(drop_path_rate, depth)
        self.layers = nn.ModuleList(VimBlock(embed_dim, VimMixer(embed_dim), rate) for rate in rates)
        self.norm_f = nn.RMSNorm(embed_dim, eps=NORM_EPS)
        self.joined = registers * embed_dim // reduction
        self.set_pooling(global_pool)
        self.neck: nn.Linear | None = None
        self.norm_neck: nn.RMSNorm | None = None
        if reduction > 1:
            self.neck = nn.Linear(embed_dim, embed_dim // reduction, bias=False)
            self.norm_neck = nn.RMSNorm(self.head_hidden_size, eps=NORM_EPS)
        self.head = classifier(self.head_hidden_size, num_classes)
        init_weights(self.layers, self.head, (self.cls_token, self.pos_embed_cls, self.pos_embed))

    def set_pooling(self, global_pool: str) -> None:
        """Choose what the head reads: with ``"token"`` the registers, through the neck."""
        super().set_pooling(global_pool)
        self.head_hidden_size = self.joined if global_pool == "token" else self.num_features

    def embed(self, images: Tensor) -> Tokens:
        """``(b c height width)`` -> all tokens, the registers at their places."""
        check_images(images, self.in_chans, self.patch_size)
        patches = self.patch_embed(images)  # (b h w d)
        grid = (patches.shape[1], patches.shape[2])
        image = patches.flatten(1, 2) + fit_positions(self.pos_embed, self.grid, grid, no_extras)
        extras = register_positions(grid[0] * grid[1], self.class_token_count)
        registers = (self.cls_token + self.pos_embed_cls).expand(images.shape[0], -1, -1)
        return Tokens(put_in(image, registers, extras), Layout(grid, extras, alignment=NONE, device=image.device))

    def read(self, tokens: Tokens) -> Tensor:
        """The registers, each reduced by the neck if there is one, as one vector; or what another pooling says."""
        if self.global_pool != "token":
            return super().read(tokens)
        rows = self.final_norm(take(tokens.stream, tokens.extra_places))  # (b x d)
        if self.neck is None or self.norm_neck is None:
            return rows.flatten(1)
        return self.norm_neck(self.neck(rows).flatten(1).to(self.norm_neck.weight.dtype))


_hub = partial(HubFile, "Wangf3014/Mamba-Reg")
_WHOLE = replace(IMAGENET, crop_share=1.0)  # published with the whole picture, not its middle
VARIANTS = {
    "mambar_small_patch16_224": Variant(
        MambaReg,
        {"embed_dim": 384, "depth": 24, "registers": 12, "reduction": 2},
        _hub("mambar_small_patch16_224.pth"),
        "28 M parameters, 12 registers, 81.4 % ImageNet top-1 (repository).",
        _WHOLE,
    ),
    "mambar_base_patch16_224": Variant(
        MambaReg,
        {"embed_dim": 768, "depth": 24, "registers": 12, "reduction": 4},
        _hub("mambar_base_patch16_224.pth"),
        "99 M parameters, 12 registers, 83.0 % ImageNet top-1 (repository).",
        _WHOLE,
    ),
    "mambar_large_patch16_224": Variant(
        MambaReg,
        {"embed_dim": 1024, "depth": 48, "registers": 16, "reduction": 8},
        _hub("mambar_large_patch16_224.pth"),
        "341 M parameters, 16 registers, 83.6 % ImageNet top-1 (repository).",
        _WHOLE,
    ),
    "mambar_micro_patch4_56": Variant(
        MambaReg,
        {**MICRO_SCENES, "registers": 4},
        "mambar_micro_patch4_56.safetensors",
        "196 tokens of a fashion scene (56 px, patch 4, three channels) and 4 registers; weights come with the package.",
        SCENES,
    ),
}
