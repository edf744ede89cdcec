"""Weights to start ``mambar_micro_patch4_56`` from: those of ``vim_micro_patch4_56``, with registers for its class token.

python recipes/start_mambar_micro.py runs/start.safetensors
skimba train recipes/mambar_micro_patch4_56.toml --scenes checkpoint=runs/start.safetensors --out runs/mambar_micro
"""

import sys

import torch
from safetensors.torch import save_file

import skimba


def weights() -> dict[str, torch.Tensor]:
    """By name; the head, which reads all registers side by side, starts anew, as do the registers' positions."""
    vim = skimba.create_model("vim_micro_patch4_56", pretrained=True).state_dict()
    own = skimba.create_model("mambar_micro_patch4_56").state_dict()
    shared = {name: value for name, value in vim.items() if not name.startswith("head")}
    position, middle = vim["pos_embed"], vim["pos_embed"].shape[1] // 2  # Vim's class token stands in the middle
    shared["pos_embed"] = torch.cat((position[:, :middle], position[:, middle + 1 :]), 1)
    shared["cls_token"] = (vim["cls_token"] + position[:, middle : middle + 1]).expand_as(own["cls_token"])
    return {name: shared.get(name, value).contiguous() for name, value in own.items()}


if __name__ == "__main__":
    save_file(weights(), sys.argv[1])
