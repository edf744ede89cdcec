"""One style for all pictures: colours that are told apart with every common form of colour blindness, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

FONT = 9.0  # points
LINE_HEIGHT = 1.35  # distance of labels, in font sizes


@dataclass(frozen=True)
class Theme:
    """Colours of a picture.

    Attributes:
        paper, ink, soft, grid: background, text, secondary text, thin lines.
        border, mark: around merged regions; of a patch that is pointed at.
        dropped: what dropped patches fade to, red, green and blue in 0 … 1; unlike black, white and grey pictures.
        series: lines, after Okabe and Ito, "Color Universal Design" (2008).
        ramp: from nothing to much, in one hue: it reads in grey too.
    """

    paper: str
    ink: str
    soft: str
    grid: str
    border: str
    mark: str
    dropped: tuple[float, float, float]
    series: tuple[str, ...]
    ramp: tuple[str, ...]

    @property
    def heat(self) -> Colormap:
        """The ramp as a colour map; what is not there is as the paper."""
        return LinearSegmentedColormap.from_list("heat", self.ramp).with_extremes(bad=self.paper)

    def colors(self, titles: Iterable[str]) -> dict[str, str]:
        """A colour for each title: dense models and alignments have theirs, others take the rest in turn."""
        known = {"dense": self.ink, **dict(zip(("hold", "none", "decay"), self.series, strict=False))}
        others = iter([*self.series[3:], *self.series[:3]] * 9)
        return {title: known[title] if title in known else next(others) for title in titles}


def find_theme(given: str | Theme) -> Theme:
    """A theme by its name in :data:`THEMES`, or itself; raises ValueError for an unknown name."""
    if isinstance(given, Theme):
        return given
    if given not in THEMES:
        raise ValueError(f"unknown theme {given!r}; known: {', '.join(THEMES)}, or a Theme")
    return THEMES[given]


def new_figure(
    theme: Theme, rows: int, columns: int, width: float, height: float, ratios: Sequence[float] | None = None
) -> tuple[Figure, Any]:
    """A figure and its axes, an array ``(rows columns)``; the sizes of one of them in inches."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", facecolor=theme.paper)
    grid = figure.subplots(rows, columns, squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.set_facecolor(theme.paper)
        axes.tick_params(which="both", labelsize=FONT - 1, colors=theme.soft)
        for spine in axes.spines.values():
            spine.set_color(theme.grid)
    return figure, grid


def describe(axes: Axes, theme: Theme, title: str, x: str = "", y: str = "") -> None:
    """Title and axis labels of a plot of lines, and its grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=FONT + 0.5, loc="left", fontweight="bold", color=theme.ink)
    axes.set_xlabel(x, fontsize=FONT, color=theme.soft)
    axes.set_ylabel(y, fontsize=FONT, color=theme.soft)


def note(figure: Figure, theme: Theme, text: str) -> None:
    """What the picture shows, below it."""
    figure.supxlabel(text, fontsize=FONT - 0.5, color=theme.soft, x=0.01, ha="left")


def label_ends(
    axes: Axes, ends: Sequence[tuple[str, float, float, str]], font: float = FONT, lines: int = 1, at: float = 1.04
) -> None:
    """Write labels in a column to the right of the axes, each level with the end of its line and none on another.

    Args:
        ends: (text, x, y, colour) of the last point of each line, in data coordinates. The limits of the axes must stand.
        font: size in points.
        lines: of text in each label.
        at: where the column begins, in widths of the axes.
    """
    low, high = axes.transData.transform([(axes.get_xlim()[0], limit) for limit in axes.get_ylim()])[:, 1]
    step = lines * LINE_HEIGHT * font / 72 * axes.figure.dpi / (high - low)
    level = [float((axes.transData.transform((x, y))[1] - low) / (high - low)) for _, x, y, _ in ends]
    order = sorted(range(len(ends)), key=lambda n: level[n])
    places = spread([level[n] for n in order], step)
    for n, place in zip(order, places, strict=True):
        text, x, y, color = ends[n]
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(at, place),
            textcoords="axes fraction",
            color=color,
            fontsize=font,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )


def spread(levels: Sequence[float], step: float) -> list[float]:
    """Ascending places at least ``step`` apart and as near as possible to ``levels`` (ascending): runs that would overlap are
    centred on their mean."""
    runs: list[tuple[float, int]] = []  # (first place, number of labels)
    for level in levels:
        runs.append((level, 1))
        while len(runs) > 1 and runs[-2][0] + runs[-2][1] * step > runs[-1][0]:
            (first, m), (second, n) = runs[-2:]
            centre = (m * (first + (m - 1) * step / 2) + n * (second + (n - 1) * step / 2)) / (m + n)
            runs[-2:] = [(centre - (m + n - 1) * step / 2, m + n)]
    return [first + number * step for first, count in runs for number in range(count)]


def show_map(axes: Axes, theme: Theme, values: np.ndarray[Any, Any], size: tuple[int, int], title: str = "") -> None:
    """A map ``(h w)`` >= 0 over a picture of that height and width, from 0 to its largest value; NaN is left blank."""
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
    axes.imshow(values, cmap=theme.heat, vmin=0, vmax=largest or 1.0, extent=extent, interpolation="nearest")
    plain_axes(axes, theme, title)


def plain_axes(axes: Axes, theme: Theme, title: str = "") -> None:
    """Axes of a picture: no ticks, a small title."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=FONT, loc="left", color=theme.ink)


THEMES: dict[str, Theme] = {
    "light": Theme(
        paper="#FFFFFF",
        ink="#222222",
        soft="#555555",
        grid="#E6E6E6",
        border="#D55E00",
        mark="#D55E00",
        dropped=(0.68, 0.82, 0.93),
        series=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"),
        ramp=("#F7FBFF", "#9DCBEA", "#2F83BD", "#083B66"),
    ),
    "dark": Theme(
        paper="#14181C",
        ink="#ECECEC",
        soft="#B0B6BC",
        grid="#39414A",
        border="#F0883E",
        mark="#F0883E",
        dropped=(0.13, 0.27, 0.40),
        series=("#56B4E9", "#F0883E", "#2CC295", "#E39AC6", "#9AA0A6"),
        ramp=("#14181C", "#17456B", "#3E97CF", "#D6EEFF"),
    ),
}
