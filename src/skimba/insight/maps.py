"""Maps over pictures: what a patch reads, what speaks for a class, which pixels count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from skimba.insight.attention import Attention
from skimba.insight.drawing import outlines
from skimba.insight.places import token_of_position
from skimba.insight.receptive_field import area
from skimba.insight.relevance import Relevance
from skimba.insight.style import FONT, Theme, find_theme, new_figure, note, plain_axes, show_map
from skimba.tokens import Layout

SIDE = 1.9  # inches of one map
MOST_ROWS = 8


def draw_attention(attention: Attention, picture: Tensor, image: int = 0, theme: str | Theme = "light") -> Figure:
    """What each reading position reads of the patches, by scan and summed, beside the picture.

    Args:
        attention: of at most eight positions.
        picture: ``(c height width)`` in 0 … 1.

    Raises:
        ValueError: too many positions; ask :func:`~skimba.insight.hidden_attention` for a few, or draw the matrix. A clip.
    """
    positions = attention.positions
    _check_picture(attention.layout.grid)
    if len(positions) > MOST_ROWS:
        raise ValueError(f"at most {MOST_ROWS} positions can be drawn, got {len(positions)}: see draw_attention_matrix")
    theme, layout = find_theme(theme), attention.layout
    scans = len(attention.walks)
    figure, grid = new_figure(theme, len(positions), 2 + scans, SIDE, SIDE * 1.15)
    size = (picture.shape[-2], picture.shape[-1])
    tokens = layout.image_part(token_of_position(layout, image)[None])[0].cpu()
    for row, position in enumerate(positions):
        _show_picture(grid[row, 0], theme, picture, _name(layout, position))
        maps = [*attention.maps[image, :, row], attention.summed_maps[image, row]]
        titles = [walk.replace("_", " ") for walk in attention.walks] + ["all scans"]
        for axes, values, title in zip(grid[row, 1:], maps, titles, strict=True):
            show_map(axes, theme, _blank(values, tokens), size, title if row == 0 else "")
            axes.add_collection(LineCollection(outlines(tokens, size), colors=theme.border, linewidths=0.4))
        for axes in grid[row]:
            _mark(axes, theme, layout, position, size)
    note(figure, theme, "Boxed: the patch that reads. Each map from 0 to its largest value. Blank: no token.")
    return figure


def draw_attention_matrix(attention: Attention, image: int = 0, theme: str | Theme = "light") -> Figure:
    """All rows and columns, one matrix for each scan and their sum; the colour is the square root, so that little is seen too."""
    theme = find_theme(theme)
    matrices = [*attention.weight[image], attention.summed[image]]
    titles = [walk.replace("_", " ") for walk in attention.walks] + ["all scans"]
    figure, grid = new_figure(theme, 1, len(matrices), 2.7, 2.9)
    for axes, values, title in zip(grid[0], matrices, titles, strict=True):
        shown = values.clamp(min=0).sqrt().cpu().numpy()
        axes.imshow(shown, cmap=theme.heat, vmin=0, aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=FONT, loc="left", color=theme.ink)
        axes.set_xlabel("position that is read", fontsize=FONT - 0.5, color=theme.soft)
    grid[0, 0].set_ylabel("position that reads", fontsize=FONT - 0.5, color=theme.soft)
    return figure


def draw_relevance(
    found: Relevance, pictures: Tensor, names: Sequence[str] | None = None, theme: str | Theme = "light"
) -> Figure:
    """Each picture, and what of it speaks for its class.

    Args:
        pictures: ``(b c height width)`` in 0 … 1.
        names: of the classes.

    Raises:
        ValueError: a clip.
    """
    _check_picture(tuple(found.map.shape[1:]))
    theme = find_theme(theme)
    figure, grid = new_figure(theme, 2, len(pictures), SIDE * 0.9, SIDE)
    size = (pictures.shape[-2], pictures.shape[-1])
    for column, (picture, values, chosen) in enumerate(zip(pictures, found.map, found.classes.tolist(), strict=True)):
        _show_picture(grid[0, column], theme, picture, str(chosen) if names is None else names[chosen])
        show_map(grid[1, column], theme, values.cpu().numpy(), size)
    note(figure, theme, "Below: what speaks for the class, each map from 0 to its largest value.")
    return figure


def draw_receptive_fields(fields: Mapping[str, Tensor], theme: str | Theme = "light") -> Figure:
    """Receptive fields ``(height width)`` by title, the colour as the square root, with the share of the pixels that holds
    four fifths."""
    theme = find_theme(theme)
    figure, grid = new_figure(theme, 1, len(fields), SIDE * 1.1, SIDE * 1.35)
    for axes, (title, field) in zip(grid[0], fields.items(), strict=True):
        size = (field.shape[-2], field.shape[-1])
        show_map(axes, theme, field.sqrt().cpu().numpy(), size, title)
        axes.set_xlabel(f"80 % in {100 * area(field):.0f} % of the pixels", fontsize=FONT - 0.5, color=theme.soft)
    note(figure, theme, "Square root of the gradient of one token, each map from 0 to its largest value.")
    return figure


def _check_picture(grid: tuple[int, ...]) -> None:
    if len(grid) != 2:
        raise ValueError(
            f"maps are drawn over pictures, of a grid (h, w); got a clip's, {grid}: draw its frames yourself"
        )


def _show_picture(axes: Axes, theme: Theme, picture: Tensor, title: str) -> None:
    axes.imshow(picture.expand(3, -1, -1).movedim(0, -1).cpu().numpy(), vmin=0, vmax=1, interpolation="nearest")
    plain_axes(axes, theme, title)


def _blank(values: Tensor, tokens: Tensor) -> np.ndarray[Any, Any]:
    """NaN where no token stands for a patch."""
    return values.cpu().where(tokens >= 0, torch.nan).numpy()


def _patch(layout: Layout, position: int) -> int | None:
    """The patch at a position, in raster order; None for an extra token."""
    image = layout.image_part(torch.arange(layout.full_length)[None]).flatten().tolist()
    return image.index(position) if position in image else None


def _name(layout: Layout, position: int) -> str:
    patch = _patch(layout, position)
    return "class token" if patch is None else f"row {patch // layout.grid[-1]}, column {patch % layout.grid[-1]}"


def _mark(axes: Axes, theme: Theme, layout: Layout, position: int, size: tuple[int, int]) -> None:
    patch = _patch(layout, position)
    if patch is None:
        return
    high, wide = size[0] / layout.grid[-2], size[1] / layout.grid[-1]
    corner = (patch % layout.grid[-1] * wide - 0.5, patch // layout.grid[-1] * high - 0.5)
    axes.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor=theme.mark, linewidth=1.5))
