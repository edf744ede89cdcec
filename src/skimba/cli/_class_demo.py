"""``skimba demo``, of classifiers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from skimba.cli._app import out, print_json, say
from skimba.cli._demo_table import demo_table
from skimba.cli._progress import bar
from skimba.data import embedded_test_images
from skimba.pruning import prune
from skimba.reports import demo
from skimba.store import create_model


def show(picture: Path, as_json: bool) -> None:
    """Measure, draw and print."""
    from skimba.insight.drawing import draw_stages  # matplotlib takes a second to load

    images = embedded_test_images()
    with bar("measuring", len(demo.MODELS) * -(-len(images) // demo.BATCH)) as advance:
        rows = [row for name in demo.MODELS for row in demo.measure(name, images, lambda: advance(1))]
    sample = images[:2]
    pruned = {
        f"{name} {method}": prune(create_model(name, pretrained=True), method, dict.fromkeys(demo.STAGES, 0.7)).eval()
        for name in demo.MODELS
        for method in ("top", "hold")
    }
    with torch.inference_mode():
        draw_stages(pruned, sample.normalised(), sample.pixels / 255, picture)
    if as_json:
        print_json({"images": len(images), "picture": str(picture), "rows": [asdict(row) for row in rows]})
        return
    stages = ", ".join(map(str, demo.STAGES))
    for name in demo.MODELS:
        title = f"{name}, {len(images)} test images of Fashion-MNIST; tokens kept after blocks {stages}"
        out.print(demo_table(title, "keep", "image", [(f"{row.keep:.1f}", row) for row in rows if row.model == name]))
    say(f"picture: {picture}")
