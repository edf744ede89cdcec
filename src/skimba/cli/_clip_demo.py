"""``skimba demo --task clips``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from skimba.cli._app import out, print_json, say
from skimba.cli._demo_table import demo_table
from skimba.cli._progress import bar
from skimba.reports import clip_demo


def show(picture: Path, as_json: bool) -> None:
    """Measure, draw and print."""
    from skimba.insight.clip_drawing import draw_clip  # matplotlib takes a second to load

    clips, models = clip_demo.clips(), clip_demo.variants()
    with bar("measuring", -(-len(clips) // clip_demo.BATCH)) as advance:
        rows = clip_demo.measure(models, clips, lambda: advance(1))
    with torch.inference_mode():
        draw_clip(*clip_demo.drawn(models, clips), picture)
    if as_json:
        print_json({"clips": clip_demo.CLIPS, "picture": str(picture), "rows": [asdict(row) for row in rows]})
        return
    title = f"{clip_demo.MODEL}, {clip_demo.CLIPS} held-back clips of moving items"
    said = [(f"{-row.reduction:.0%}" if row.reduction else "", row) for row in rows]
    out.print(demo_table(title, "FLOPs", "clip", said))
    say(f"picture, one clip dense, merged in space, and in space and time: {picture}")
