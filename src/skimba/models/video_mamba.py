"""VideoMamba for pictures: arXiv 2403.06977, github OpenGVLab/VideoMamba. Parameter names are the official ones."""

from __future__ import annotations

from typing import Any

from skimba.layers.patch_embed import at_the_start
from skimba.models.variants import HubFile, Variant
from skimba.models.vim import VisionMamba


class VideoMamba(VisionMamba):
    """As Vim, but the class token stands first, and the two directions are added, not averaged. Arguments as Vim's."""

    position_extras = staticmethod(at_the_start)
    halved = False


def _image(letter: str, side: int, sizes: dict[str, Any], about: str) -> Variant:
    trained = {224: "224", 448: "224to448", 576: "224to448to576"}[side]
    file = HubFile("OpenGVLab/VideoMamba", f"videomamba_{letter}16_in1k_res{trained}.pth")
    return Variant(VideoMamba, {"img_size": side, **sizes}, file, f"{about} ImageNet top-1 at {side} px (repository).")


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
}
