"""A picture of what pruning keeps and merges of a clip, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from skimba.insight.drawing import outlines, paint, token_map
from skimba.insight.style import FONT, Theme, find_theme, new_figure, note, plain_axes
from skimba.insight.trace import trace
from skimba.models import TokenModel

SIDE = 1.1  # inches of one frame
NOTE = "Outlined, in its mean colour over all frames: the patches that one merged token stands for.  Bluish: dropped."


def draw_clip(
    models: Mapping[str, TokenModel],
    clip: Tensor,
    frames: Tensor,
    path: str | Path | None = None,
    theme: str | Theme = "light",
) -> Figure:
    """For each model a row of frames: what is left of the clip after its last stage.

    Args:
        models: by title; a dense one shows the frames as they are.
        clip: ``(1 c t height width)`` normalised, as the models take it.
        frames: ``(3 t height width)`` in 0 … 1, the same clip to look at.
        path: where to write the picture (PNG, PDF, SVG by its suffix).
        theme: a key of :data:`~skimba.insight.style.THEMES`, or a theme.
    """
    theme = find_theme(theme)
    figure, grid = new_figure(theme, len(models), frames.shape[1], SIDE, SIDE * 1.2)
    beside = frames.movedim(1, 2).flatten(2)  # (3 height t·width): one picture, so that a region has one mean colour
    for row, (title, model) in zip(grid, models.items(), strict=True):
        tokens = trace(model, clip)[-1]
        owner = token_map(tokens)[0].cpu()  # (t h w)
        painted = paint(beside, owner.movedim(0, 1).flatten(1), theme.dropped).chunk(len(row), -1)
        patches = torch.bincount(owner.flatten() + 1)
        for number, (axes, shown) in enumerate(zip(row, painted, strict=True)):
            axes.imshow(shown.movedim(0, -1).numpy(), vmin=0, vmax=1, interpolation="nearest")
            lines = outlines(owner[number], (shown.shape[-2], shown.shape[-1]), patches)
            axes.add_collection(LineCollection(lines, colors=theme.border, linewidths=0.5))
            plain_axes(axes, theme)
        text = f"{title}: {tokens.layout.image_count} tokens"
        head = row[0].annotate(text, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points")
        head.set(fontsize=FONT, color=theme.ink, in_layout=False)  # it may run on over the next frames
    note(figure, theme, NOTE)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
