"""Plots of how far scans remember, and of what pruning changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from skimba.insight.changes import Changes
from skimba.insight.memory import ScanTimes
from skimba.insight.style import Theme, describe, find_theme, label_ends, new_figure, note

WIDTH, HEIGHT, LABELS = 3.6, 2.9, 0.3  # inches of one plot; share of it for labels beside the lines


def draw_memory(
    times: Mapping[str, ScanTimes], image: int = 0, scan: int = 0, start: int = 0, theme: str | Theme = "light"
) -> Figure:
    """The paper's argument in one plot: the clock of a scan along the full sequence, and what is left of its state.

    Args:
        times: by title, for instance ``dense``, ``none``, ``decay`` and ``hold``. Each line begins at its first token, on the
            line of the first title.
        image, scan: which.
        start: the place of the full scan from which on the state is watched.
    """
    theme = find_theme(theme)
    figure, grid = new_figure(theme, 1, 2, WIDTH * 1.25, HEIGHT)
    clock, left = grid[0]
    colors, ends, left_ends = theme.colors(times), [], []
    first_clock = next(iter(times.values())).clock[image, scan].mean(-1)
    for title, scans in times.items():
        place = scans.place[image, scan]
        passed = first_clock[place[0]] + scans.clock[image, scan].mean(-1)
        style = {"color": colors[title], "linewidth": 1.6, "linestyle": "--" if title == "dense" else "-"}
        clock.plot(place, passed, **style)
        ends.append((title, float(place[-1]), float(passed[-1]), colors[title]))
        first = int((place >= start).nonzero()[0])
        share = scans.remaining(first)[image, scan, first:]
        left.plot(place[first:] - place[first], share, **style)
        left_ends.append((title, float(place[-1] - place[first]), float(share[-1]), colors[title]))
    walk = next(iter(times.values())).walks[scan]
    describe(clock, theme, "Time that has passed", f"place along the scan ({walk})", "mean of all channels")
    describe(left, theme, f"State left after place {start}", "positions later", "share, mean of channels and states")
    left.set_yscale("log")
    figure.draw_without_rendering()
    label_ends(clock, ends)
    label_ends(left, left_ends)
    note(figure, theme, "Pruned tokens take their time with them (none), unless the alignment gives it back.")
    return figure


def draw_decay_lengths(times: Mapping[str, ScanTimes], theme: str | Theme = "light") -> Figure:
    """For each title, which share of all states remembers at most so many positions, over all images, scans and channels."""
    theme = find_theme(theme)
    figure, grid = new_figure(theme, 1, 1, WIDTH * 1.7, HEIGHT)
    axes, colors = grid[0, 0], theme.colors(times)
    share = torch.linspace(0, 1, 401)[1:-1]
    for title, scans in times.items():
        found = scans.decay_lengths.flatten().sort().values
        quantiles = found[(share * (len(found) - 1)).long()]
        dashes = "--" if title == "dense" else "-"
        axes.plot(quantiles, share, color=colors[title], linewidth=1.6, linestyle=dashes, label=title)
    full = max(int(scans.place.max()) + 1 for scans in times.values())
    axes.axvline(full, color=theme.soft, linewidth=0.8, linestyle=":")
    axes.annotate(f"sequence: {full}", (full, 0.02), (4, 0), textcoords="offset points", color=theme.soft, fontsize=8)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    describe(axes, theme, "How far states remember", "positions until 1/e is left", "share of all states")
    axes.legend(frameon=False, fontsize=8.5, labelcolor="linecolor", loc="upper left")
    return figure


def draw_changes(changes: Changes, theme: str | Theme = "light") -> Figure:
    """By block, how far pruned models are from the dense one; dotted lines: after these blocks tokens are removed."""
    theme = find_theme(theme)
    figure, grid = new_figure(theme, 1, 3, WIDTH * 0.85, HEIGHT)
    colors = theme.colors(changes.titles)
    blocks = range(1, changes.scan.shape[1] + 1)
    panels = (("Output of the scans", changes.scan), ("Stream", changes.stream), ("Logits, read there", changes.logits))
    for axes, (name, values) in zip(grid[0], panels, strict=True):
        for block in changes.removes.any(0).nonzero()[:, 0].tolist():
            axes.axvline(block + 1.5, color=theme.soft, linewidth=0.7, linestyle=":")
        for title, row in zip(changes.titles, values, strict=True):
            axes.plot(blocks, row, color=colors[title], linewidth=1.6, marker="o", markersize=3)
        axes.set_ylim(bottom=0)
        describe(axes, theme, name, "block", "change / size of dense" if axes is grid[0, 0] else "")
    figure.draw_without_rendering()
    for axes, (_, values) in zip(grid[0], panels, strict=True):
        last = len(blocks)
        pairs = zip(changes.titles, values[:, -1].tolist(), strict=True)
        label_ends(axes, [(title, last, value, colors[title]) for title, value in pairs])
    note(figure, theme, "Dotted: tokens are removed between these blocks.")
    return figure
