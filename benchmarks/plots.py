"""What the benchmarks' plots share: the package's colours, plain axes, a note and a key below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skimba.insight.style import THEMES

WIDTH = 8.6  # inches; a README column is about 860 pixels wide, so an 8-point label is 11 pixels high there
DPI = 180
FONT = 8.0
BLUE, ORANGE, GREEN, PINK, GREY = THEMES["light"].series
BLACK = THEMES["light"].ink


def new_figure(height: float, columns: int = 1, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of one row of axes, in the common style (inches)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    found = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=FONT)
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, found


def describe(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axis labels."""
    axes.set_title(title, fontsize=FONT + 1, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=FONT)
    axes.set_ylabel(y, fontsize=FONT)


def save(figure: Figure, path: Path, note: str, key: Mapping[str, str]) -> None:
    """Write the picture; below the plots a note that says what was measured and how, and a key (meaning: colour)."""
    handles = [Line2D([], [], color=color, linewidth=2.4, label=meaning) for meaning, color in key.items()]
    below = figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=max(len(handles), 1),
        fontsize=FONT,
        frameon=False,
        title=note,
        title_fontsize=FONT - 0.5,
        alignment="left",
    )
    below.get_title().set_color("#555555")
    figure.savefig(path, dpi=DPI)
