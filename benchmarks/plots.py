"""What the benchmarks' plots share: a colour-blind-safe palette, plain axes, labels at the ends of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WIDTH = 8.6  # inches; a README column is about 860 pixels wide, so an 8-point label is 11 pixels high there
DPI = 180
FONT = 8.0
# Okabe and Ito, "Color Universal Design" (2008): told apart with every common form of colour blindness, and in grey.
BLUE, ORANGE, GREEN, PINK, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676", "#222222"
LINE_HEIGHT = 1.35  # distance of labels, in font sizes


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


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]], lines: int = 1) -> None:
    """Write labels in a column to the right of the axes, each level with the end of its line and none on another.

    Args:
        ends: (text, x, y, colour) of the last point of each line, in data coordinates. The limits of the axes must stand.
        lines: of text in each label.
    """
    low, high = axes.transData.transform([(0, limit) for limit in axes.get_ylim()])[:, 1]
    step = lines * LINE_HEIGHT * FONT / 72 * axes.figure.dpi / (high - low)
    level = {
        n: float((axes.transData.transform((x, y))[1] - low) / (high - low)) for n, (_, x, y, _) in enumerate(ends)
    }
    order = sorted(level, key=lambda n: level[n])
    places = spread([level[n] for n in order], step)
    for n, place in zip(order, places, strict=True):
        text, x, y, color = ends[n]
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.06, place),
            textcoords="axes fraction",
            color=color,
            fontsize=FONT,
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
