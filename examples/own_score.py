"""Prune by a score of your own, and compare it with the paper's.

    python examples/own_score.py

A score is a function ``(tokens, count, seed) -> (b l)``: the larger, the more important. This one asks how far a token is from
the mean of its image: background patches are alike, so they go first.
"""

from __future__ import annotations

import torch
from torch import Tensor

import skimba
from skimba import HOLD, Flops, Merge, Method
from skimba.data import LabelledImages, embedded_test_images
from skimba.models.evaluation import accuracy, predict
from skimba.tokens import Tokens


def distance_from_mean(tokens: Tokens, count: int, seed: int) -> Tensor:
    """``(b l)``: distance of each token's residual stream from the image's mean."""
    stream = tokens.stream.float()
    return (stream - stream.mean(1, keepdim=True)).norm(dim=-1)


def main(images: LabelledImages) -> dict[str, float]:
    """Accuracy by score, at 60 % of the dense model's FLOPs."""
    model = skimba.create_model("vim_micro", pretrained=True).eval()
    found = {}
    with torch.inference_mode():
        for name, score in {"the paper's": "clip", "distance from mean": distance_from_mean}.items():
            pruned = skimba.prune(model, Method(Merge(score=score), align=HOLD), Flops(0.6))
            found[name] = accuracy(*predict(pruned, images.batches(100)))
    return found


if __name__ == "__main__":
    for name, share in main(embedded_test_images()).items():
        print(f"{name}: {share:.1%}")
