"""Pictures of what pruning keeps, merges and drops."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from skimba.insight.style import THEMES, Theme, find_theme
from skimba.insight.trace import trace
from skimba.models import TokenModel
from skimba.tokens import Tokens

SIDE = 1.2  # inches of one picture
PAIR = 2  # models side by side
FADED = 0.15  # share of its own colour that a dropped token keeps
NOTE = (
    "Unchanged: a token that stands for its own patch.  Outlined, in its mean colour: the patches that one merged token "
    "stands for.  Bluish: dropped."
)


def kept_mask(tokens: Tokens) -> Tensor:
    """``(b h w)`` bool: the image positions whose own token is still there."""
    full = torch.zeros(tokens.x.shape[0], tokens.layout.full_length, dtype=torch.bool, device=tokens.x.device)
    full.scatter_(1, tokens.position, True)
    return tokens.layout.image_part(full)


def token_map(tokens: Tokens) -> Tensor:
    """``(b h w)`` int64: the token (0 … l-1) that stands for each image position, -1 where none does."""
    batch, length = tokens.x.shape[:2]
    number = torch.arange(1, length + 1, dtype=torch.float64, device=tokens.x.device).expand(batch, -1)
    return tokens.scatter(number[..., None])[..., 0].round().long() - 1


def paint(picture: Tensor, owner: Tensor, dropped: tuple[float, float, float] = THEMES["light"].dropped) -> Tensor:
    """A picture as the model has it: merged regions in their mean colour, dropped patches faded.

    Args:
        picture: ``(3 height width)`` in 0 … 1.
        owner: ``(h w)`` one image of :func:`token_map`.
        dropped: what dropped patches fade to, red, green and blue.
    """
    height, width = picture.shape[-2:]
    pixel_owner = F.interpolate(owner[None, None].double(), (height, width))[0, 0].long().flatten()
    pixels = picture.flatten(1)  # (3 height·width)
    region = pixel_owner + 1
    number = int(region.max()) + 1
    area = torch.bincount(region, minlength=number).clamp(min=1)
    mean = torch.zeros(len(picture), number).index_add_(1, region, pixels) / area
    patches = torch.bincount(owner.flatten() + 1, minlength=number)
    faded = FADED * pixels + (1 - FADED) * torch.tensor(dropped)[:, None]
    painted = torch.where(patches[region] > 1, mean[:, region], pixels)
    return torch.where(pixel_owner < 0, faded, painted).view_as(picture)


def outlines(
    owner: Tensor, size: tuple[int, int], patches: Tensor | None = None
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Line segments, in pixels, around the regions of more than one patch.

    Args:
        owner: ``(h w)`` one image of :func:`token_map`, or one frame.
        size: height and width of the picture.
        patches: ``(1 + l)`` int64: how many there are without a token and of each token, where it has some in other frames too.
    """
    h, w = owner.shape
    down, right = size[0] / h, size[1] / w
    patches = torch.bincount(owner.flatten() + 1) if patches is None else patches
    merged = (owner >= 0) & (patches[owner + 1] > 1)
    segments = []
    for row, column in merged.nonzero().tolist():
        for step_down, step_right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            r, c = row + step_down, column + step_right
            if 0 <= r < h and 0 <= c < w and owner[r, c] == owner[row, column]:
                continue
            y, x = row + max(step_down, 0), column + max(step_right, 0)
            end = (x + (step_down != 0), y + (step_right != 0))
            segments.append(((x * right - 0.5, y * down - 0.5), (end[0] * right - 0.5, end[1] * down - 0.5)))
    return segments


def draw_tokens(axes: Axes, tokens: Tokens, image: int, picture: Tensor, theme: Theme = THEMES["light"]) -> None:
    """One image of ``tokens`` over its ``picture (c height width)`` in 0 … 1."""
    height, width = picture.shape[-2:]
    picture = picture.expand(3, -1, -1).cpu()
    owner = token_map(tokens)[image].cpu()
    axes.imshow(paint(picture, owner, theme.dropped).movedim(0, -1).numpy(), vmin=0, vmax=1, interpolation="nearest")
    axes.add_collection(LineCollection(outlines(owner, (height, width)), colors=theme.border, linewidths=0.5))


def draw_stages(
    models: Mapping[str, TokenModel],
    images: Tensor,
    pictures: Tensor,
    path: str | Path | None = None,
    theme: str | Theme = "light",
) -> Figure:
    """For each image the tokens that are left after each stage, pruned models side by side.

    Args:
        models: pruned models by title.
        images: ``(b c height width)`` normalised, as the models take them.
        pictures: ``(b c height width)`` in 0 … 1, the same images to look at; one or three channels.
        path: where to write the picture (PNG, PDF, SVG by its suffix).
        theme: a key of :data:`~skimba.insight.style.THEMES`, or a theme.
    """
    theme = find_theme(theme)
    traces = {title: trace(model, images) for title, model in models.items()}
    titles = list(traces)
    bands = [{title: traces[title] for title in titles[i : i + PAIR]} for i in range(0, len(titles), PAIR)]
    columns = max(1 + sum(len(stages) - 1 for stages in band.values()) for band in bands)
    rows = len(images) + 0.4  # a line for the titles
    figure = Figure(
        figsize=(SIDE * columns, SIDE * rows * len(bands) + 0.3), layout="constrained", facecolor=theme.paper
    )
    parts = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
    for part, band in zip(parts, bands, strict=True):
        part.set_facecolor(theme.paper)
        _draw_band(part, band, pictures, columns, theme)
    figure.supxlabel(NOTE, fontsize=8, color=theme.soft, x=0.01, ha="left")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw_band(part: SubFigure, band: Mapping[str, list[Tokens]], pictures: Tensor, columns: int, theme: Theme) -> None:
    """One row for each image: its picture, then each model's stages."""
    grid = part.subplots(len(pictures), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for image, row in enumerate(grid):
        row[0].imshow(pictures[image].expand(3, -1, -1).movedim(0, -1).cpu().numpy(), vmin=0, vmax=1)
        cells = iter(row[1:])
        for title, (start, *stages) in band.items():
            for number, tokens in enumerate(stages):
                axes = next(cells)
                draw_tokens(axes, tokens, image, pictures[image], theme)
                if image == 0:
                    _head(row[0], "", start, theme)
                    _head(axes, title if number == 0 else "", tokens, theme)


def _head(axes: Axes, title: str, tokens: Tokens, theme: Theme) -> None:
    """The model's title, which may run on over its other stages, and below it the number of tokens."""
    axes.set_title(f"\n{tokens.layout.image_count} tokens", fontsize=8, loc="left", color=theme.ink)
    name = axes.annotate(title, (0, 1), (0, 16), xycoords="axes fraction", textcoords="offset points", weight="bold")
    name.set(fontsize=9, in_layout=False, color=theme.ink)
