"""The table of a demo of classifiers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from skimba.reports.demo import Measured


def demo_table(title: str, setting: str, unit: str, rows: Sequence[tuple[str, Measured]]) -> Table:
    """A line for each row, behind its setting in words.

    Args:
        setting: the head of the first column.
        unit: what a time is of.
    """
    table = Table(title=title)
    for column in (setting, "method", "accuracy %", "GFLOPs published", "exact", f"ms/{unit}", "speed-up"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for said, row in rows:
        table.add_row(
            said,
            row.method,
            f"{100 * row.accuracy:.1f}",
            f"{row.published_gflops:.3f}",
            f"{row.exact_gflops:.3f}",
            f"{row.time_ms:.2f}",
            f"{row.speedup:.2f}",
        )
    return table
