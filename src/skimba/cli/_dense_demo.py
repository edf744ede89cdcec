"""``skimba demo --task detect|segment``."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.table import Table

from skimba.cli._app import out, print_json, say
from skimba.cli._progress import bar
from skimba.reports import dense_demo
from skimba.reports.demo import STAGES
from skimba.runtime.files import write_atomically


def show(asked: str, picture: Path, as_json: bool) -> None:
    """Measure, draw and print."""
    with bar("measuring", len(dense_demo.MODELS) * dense_demo.SCENES) as advance:
        found = {name: dense_demo.measure(asked, name, lambda: advance(1)) for name in dense_demo.MODELS}
    rows = [row for table, _ in found.values() for row in table]
    drawn = next(iter(found.values()))[1]
    write_atomically(picture, partial(drawn.save, format="PNG"))
    if as_json:
        print_json({"scenes": dense_demo.SCENES, "picture": str(picture), "rows": [asdict(row) for row in rows]})
        return
    for name in found:
        out.print(_table(asked, name, [row for row in rows if row.model == name]))
    say(f"picture, dense on the left and hold on the right: {picture}")


def _table(asked: str, name: str, rows: list[dense_demo.Row]) -> Table:
    kind, _, figures = dense_demo.KINDS[asked]
    stages = ", ".join(map(str, STAGES))
    table = Table(
        title=f"{kind} on {name}, {dense_demo.SCENES} held-back scenes; {dense_demo.SHARE:.0%} of the tokens kept after "
        f"blocks {stages}"
    )
    for column in ("method", *(f"{said} %" for said in figures.values()), "GFLOPs backbone", "whole", "ms", "speed-up"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        measured = [f"{100 * row.figures[figure]:.1f}" for figure in figures]
        costs = (f"{row.backbone_gflops:.3f}", f"{row.exact_gflops:.3f}", f"{row.time_ms:.1f}", f"{row.speedup:.2f}")
        table.add_row(row.method, *measured, *costs)
    return table
