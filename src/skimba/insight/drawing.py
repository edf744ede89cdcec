"""Pictures of what survives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from skimba.insight.trace import trace
from skimba.models import TokenModel
from skimba.tokens import Tokens

FADED = 0.2  # share of its brightness that a removed token keeps
REMOVED = (0.10, 0.22, 0.45)  # what it is tinted with, red, green and blue


def kept_mask(tokens: Tokens) -> Tensor:
    """``(b h w)`` bool: the image positions whose own token is still there."""
    full = torch.zeros(tokens.x.shape[0], tokens.layout.full_length, dtype=torch.bool, device=tokens.x.device)
    full.scatter_(1, tokens.position, True)
    if tokens.class_position is not None:
        full = torch.cat([full[:, : tokens.class_position], full[:, tokens.class_position + 1 :]], 1)
    return full.unflatten(1, tokens.grid)


def draw_stages(models: Mapping[str, TokenModel], images: Tensor, pictures: Tensor, path: str | Path) -> None:
    """Write a picture: for each pruned model and each image the tokens that are left after each stage.

    Args:
        models: pruned models by title.
        images: ``(b c height width)`` normalised, as the models take them.
        pictures: ``(b c height width)`` in 0 … 1, the same images to look at; one or three channels.
        path: where to write it (PNG, PDF, SVG by its suffix).
    """
    traces = {title: trace(model, images) for title, model in models.items()}
    stages = max(len(found) for found in traces.values())
    rows, columns = len(images) * len(models), stages
    figure = Figure(figsize=(1.5 * columns, 1.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for m, (title, found) in enumerate(traces.items()):
        for i in range(len(images)):
            row = axes[m * len(images) + i]
            for axis in row:
                axis.set_axis_off()
            for axis, tokens in zip(row, found, strict=False):
                mask = kept_mask(tokens)[i].float()[None, None]
                mask = torch.nn.functional.interpolate(mask, pictures.shape[-2:])[0, 0]
                tinted = FADED * pictures[i] + (1 - FADED) * torch.tensor(REMOVED)[:, None, None]
                shown = torch.where(mask > 0, pictures[i].expand_as(tinted), tinted)  # (3 height width)
                axis.imshow(shown.movedim(0, -1).cpu().numpy(), vmin=0, vmax=1)
                if i == 0:
                    axis.set_title(f"{title}\n{tokens.layout.image_count} tokens", fontsize=7)
    figure.savefig(path, dpi=110)
