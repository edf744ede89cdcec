"""Weights to start ``videomamba_micro`` from: those of ``vim_micro_patch4_56``, made to read clips, as VideoMamba's own models of
clips start from models of pictures.

    python recipes/start_videomamba_micro.py runs/start.safetensors
    skimba train recipes/videomamba_micro.toml checkpoint=runs/start.safetensors --out runs/videomamba_micro
"""

import sys

import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed

import skimba

SIDE = 6  # of the grid of patches in a frame


def weights() -> dict[str, torch.Tensor]:
    """Of a clip model, by name; the head, whose classes are others, starts anew."""
    picture = skimba.create_model("vim_micro_patch4_56", pretrained=True).state_dict()
    clip = skimba.create_model("videomamba_micro").state_dict()
    shared = {name: value for name, value in picture.items() if not name.startswith("head")}
    for name in shared:
        if name.endswith("out_proj.weight"):  # Vim halves the sum of its directions, VideoMamba does not
            shared[name] = shared[name] / 2
    patch = clip["patch_embed.proj.weight"].shape[-2:]
    shared["patch_embed.proj.weight"] = resample_patch_embed(shared["patch_embed.proj.weight"], list(patch))[:, :, None]
    position, middle = shared["pos_embed"], shared["pos_embed"].shape[1] // 2  # Vim's class token stands in the middle
    grid = torch.cat((position[:, :middle], position[:, middle + 1 :]), 1)
    grid = resample_abs_pos_embed(grid, [SIDE, SIDE], num_prefix_tokens=0)
    shared["pos_embed"] = torch.cat((position[:, middle : middle + 1], grid), 1)
    return {name: shared.get(name, value).contiguous() for name, value in clip.items()}


if __name__ == "__main__":
    save_file(weights(), sys.argv[1])
