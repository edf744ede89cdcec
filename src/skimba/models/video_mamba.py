"""VideoMamba for pictures and for clips: arXiv 2403.06977, github OpenGVLab/VideoMamba. Parameter names are the official ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from skimba.layers.patch_embed import FrameEmbed, at_the_start, fit_positions, fit_times
from skimba.models.variants import SCENES, HubFile, Variant, check_images
from skimba.models.vim import VisionMamba
from skimba.tokens import NONE, Layout, Tokens


class VideoMamba(VisionMamba):
    """As Vim, but the class token stands first, and the two directions are added, not averaged. Arguments as Vim's."""

    family = "VideoMamba"
    position_extras = staticmethod(at_the_start)
    halved = False


class VideoMambaClips(VideoMamba):
    """VideoMamba of clips ``(b c t height width)``: a class token, then frame by frame each in raster order.

    Args:
        img_size: side of the (square) frames in pixels, or ``(height, width)``. Other sizes run too: positions are resized.
        patch_size: side of a patch in pixels; a patch is of one frame.
        frames: how many a clip has. Other numbers run too: positions in time are resized.
        in_chans, embed_dim, depth, num_classes, drop_path_rate, global_pool, drop_rate: as of
            :class:`skimba.models.VisionMamba`.
    """

    task = "clips"
    patches = FrameEmbed

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        frames: int = 8,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 24,
        num_classes: int = 400,
        drop_path_rate: float = 0.0,
        global_pool: str = "token",
        drop_rate: float = 0.0,
    ) -> None:
        rates = {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate}
        super().__init__(
            img_size, patch_size, None, in_chans, embed_dim, depth, num_classes, global_pool=global_pool, **rates
        )
        self.grid = (frames, *self.grid)
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, frames, embed_dim))  # compat: starts at zero

    def input_shape(self, img_size: int | tuple[int, int] | None = None) -> tuple[int, ...]:
        """``(in_chans, frames, height, width)``."""
        channels, *sides = super().input_shape(img_size)
        return channels, self.grid[0], *sides

    def embed(self, images: Tensor) -> Tokens:
        """``(b c t height width)`` -> all tokens, the class token first."""
        check_images(images, self.in_chans, self.patch_size, "frames height width")
        patches = self.patch_embed(images)  # (b t h w d)
        grid = tuple(patches.shape[1:4])
        place = fit_positions(self.pos_embed, self.grid[1:], grid[1:], self.position_extras)  # (1 1+h*w d)
        time = fit_times(self.temporal_pos_embedding, grid[0])  # (1 t d)
        image = patches.flatten(2, 3) + place[:, None, 1:] + time[:, :, None]
        token = (self.cls_token + place[:, :1]).expand(images.shape[0], -1, -1)
        x = torch.cat([token, image.flatten(1, 2)], 1)
        return Tokens(x, Layout(grid, (0,), alignment=NONE, device=x.device))


def _image(letter: str, side: int, sizes: dict[str, Any], about: str) -> Variant:
    trained = {224: "224", 448: "224to448", 576: "224to448to576"}[side]
    file = HubFile("OpenGVLab/VideoMamba", f"videomamba_{letter}16_in1k_res{trained}.pth")
    return Variant(VideoMamba, {"img_size": side, **sizes}, file, f"{about} ImageNet top-1 at {side} px (repository).")


# Ours, trained on moving items (skimba.data.MovingItems).
_MICRO = {"img_size": 48, "patch_size": 8, "frames": 8, "embed_dim": 64, "depth": 8, "num_classes": 40}


def _clip(letter: str, name: str, sizes: dict[str, Any], about: str) -> Variant:
    file = HubFile("OpenGVLab/VideoMamba", f"videomamba_{letter}16_k400_{name}.pth")
    return Variant(VideoMambaClips, sizes, file, f"{about} Kinetics-400 top-1, 4 clips of 3 crops (repository).")


def _clips(
    size: str, letter: str, sizes: dict[str, Any], accuracy: tuple[float, ...], about: str, mask: str = ""
) -> dict[str, Variant]:
    """The variants of one size: 8, 16, 32, 64 frames of 224 pixels, 64 of 384."""
    variants = {}
    for (frames, side), top1 in zip(((8, 224), (16, 224), (32, 224), (64, 224), (64, 384)), accuracy, strict=True):
        trained = "224" if side == 224 else "224to384"
        name = f"videomamba_{size}_k400_{mask}f{frames}_{side}"
        taken = {"img_size": side, "frames": frames, **sizes}
        variants[name] = _clip(letter, f"{mask}f{frames}_res{trained}", taken, f"{about}, {top1} %")
    return variants


_TINY = {"embed_dim": 192, "depth": 24}
_SMALL = {"embed_dim": 384, "depth": 24}
_MIDDLE = {"embed_dim": 576, "depth": 32}
_BASE = {"embed_dim": 768, "depth": 24}
VARIANTS = {
    "videomamba_tiny_patch16_224": _image("t", 224, _TINY, "7 M parameters, 76.9 %"),
    "videomamba_tiny_patch16_448": _image("t", 448, _TINY, "7 M parameters, 79.3 %"),
    "videomamba_tiny_patch16_576": _image("t", 576, _TINY, "7 M parameters, 79.6 %"),
    "videomamba_small_patch16_224": _image("s", 224, _SMALL, "26 M parameters, 81.2 %"),
    "videomamba_small_patch16_448": _image("s", 448, _SMALL, "26 M parameters, 83.2 %"),
    "videomamba_small_patch16_576": _image("s", 576, _SMALL, "26 M parameters, 83.5 %"),
    "videomamba_middle_patch16_224": _image("m", 224, _MIDDLE, "74 M parameters, self-distilled, 82.8 %"),
    "videomamba_middle_patch16_448": _image("m", 448, _MIDDLE, "75 M parameters, self-distilled, 83.8 %"),
    "videomamba_middle_patch16_576": _image("m", 576, _MIDDLE, "75 M parameters, self-distilled, 84.0 %"),
    "videomamba_base_patch16_224": _image("b", 224, _BASE, "98 M parameters, self-distilled, 82.7 %"),
    "videomamba_micro": Variant(
        VideoMambaClips,
        _MICRO,
        "videomamba_micro.safetensors",
        "288 tokens of 8 frames of moving items (48 px, patch 8, three channels, 40 classes).",
        SCENES,
    ),
    **_clips("tiny", "t", _TINY, (76.9, 78.1, 78.8, 79.6, 80.3), "7 M parameters"),
    **_clips("small", "s", _SMALL, (79.3, 80.8, 81.5, 81.8, 82.7), "26 M parameters"),
    **_clips("middle", "m", _MIDDLE, (80.6, 81.9, 82.4, 82.8, 83.3), "74 M parameters"),
    **_clips(
        "middle", "m", _MIDDLE, (82.0, 83.4, 83.9, 84.3, 85.0), "74 M parameters, masked pre-training", "mask_ft_"
    ),
}
