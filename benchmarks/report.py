"""Writes docs/results.md, its pictures and README's table from docs/results.jsonl (see study.py), and docs/verdict.md, which is
written by hand, into the page.

python -m benchmarks.report
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.compared import FINE_TUNING_IMAGES, METHODS, REDUCTIONS, REFITTED
from benchmarks.dense_report import write_dense_page
from benchmarks.plots import BLACK, BLUE, FONT, GREEN, GREY, ORANGE, PINK, describe, new_figure, save
from benchmarks.study import MODELS, RESULTS, SCENE_MODELS, read_results
from benchmarks.tables import (
    Lines,
    ablations,
    by_method,
    everywhere,
    families,
    fine_tuning,
    losses,
    readme,
    select,
    speeds,
    sweep,
)
from skimba.insight.style import label_ends

DOCS = RESULTS.parent
README = DOCS.parent / "README.md"
BEGIN, END = "<!-- written by benchmarks.report -->\n", "<!-- end -->"
# What a method does about missing tokens, and the colour of its lines.
HELD, DECAYED, CONDENSED, DISORDERED = "hold alignment", "decay alignment", "no alignment", "tokens out of scan order"
KEY = {HELD: BLUE, DECAYED: ORANGE, CONDENSED: GREY, DISORDERED: PINK}
MEANING = {
    HELD: tuple(method for method in METHODS if "hold" in method),
    DECAYED: ("top",),
    DISORDERED: ("evit", "tome"),
}
DRAWN = [method for method in METHODS if "0.1" not in method and REFITTED not in method]
DATA = "Fashion-MNIST, 10,000 test images, float32, no training after pruning (benchmarks/study.py)"
SUMMARY = {  # titles and colours in the README's picture
    "hold": ("hold (ours)", BLUE),
    "top": ("ToP (the paper)", ORANGE),
    "tor": ("ToR", GREY),
    "r_meeto": ("R-MeeTo", GREEN),
    "mtr": ("MTR", BLACK),
    "evit": ("EViT", PINK),
    "tome": ("ToMe", PINK),
}
TIMES = "Speed-up: median over rounds in turns, batch 50, C++ kernels, part speed of the study"


def line_style(method: str) -> dict[str, Any]:
    """Colour by what a method does about missing tokens; our default is thick."""
    color = KEY[next((meaning for meaning, methods in MEANING.items() if method in methods), CONDENSED)]
    return {"color": color, "linewidth": 2.4 if method == "hold" else 1.1}


def draw(lines: Lines, path: Path, x_of: Callable[[dict[str, Any]], float | None], label: str, note: str) -> None:
    """Accuracy of every method against ``x_of(run)``, one plot for each model."""
    figure, plots = new_figure(4.8, len(MODELS))
    for axes, model in zip(plots, MODELS, strict=True):
        ends = []
        for method in DRAWN:
            points = sorted(
                (x, 100 * line["accuracy"])
                for line in select(lines, part="methods", model=model, method=method)
                if (x := x_of(line)) is not None
            )
            if points:
                style = line_style(method)
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, **style)
                ends.append((method, *points[-1], style["color"]))
        axes.set_ylim(20, 95)
        for line in select(lines, part="methods", model=model, method="dense"):
            dense = 100 * line["accuracy"]
            axes.axhline(dense, color=BLACK, linewidth=0.8)
            axes.annotate(
                f"dense {dense:.1f} %",
                (axes.get_xlim()[0], dense),
                (1, 3),
                textcoords="offset points",
                fontsize=FONT,
            )
        describe(axes, model, label, "accuracy, %")
        label_ends(axes, ends, FONT)
    save(figure, path, note, KEY)


def draw_summary(lines: Lines, path: Path) -> None:
    """Accuracy against FLOPs of our default, the paper's method and the published rivals: the picture of the README.

    Dots are what was measured."""
    figure, plots = new_figure(4.2, len(MODELS))
    for axes, model in zip(plots, MODELS, strict=True):
        dense = 100 * select(lines, part="methods", model=model, method="dense")[0]["accuracy"]
        ends = []
        for method, (title, color) in SUMMARY.items():
            runs = select(lines, part="methods", model=model, method=method)
            points = [
                (100.0, dense),
                *sorted(((100 * r["exact_share"], 100 * r["accuracy"]) for r in runs), reverse=True),
            ]
            ours = method == "hold"
            width = 3 if ours else 1.3
            axes.plot(
                *zip(*points, strict=True),
                color=color,
                linewidth=width,
                marker="o",
                markersize=2 + width,
                zorder=2 + ours,
            )
            ends.append((title, *points[-1], color))
        axes.set_xlim(101, 49)
        axes.set_ylim(20, 95)
        describe(axes, model, "exact FLOPs, % of dense", "accuracy, %")
        label_ends(axes, ends, FONT + 1)
    save(figure, path, DATA, {})


def saved_flops(line: dict[str, Any]) -> float | None:
    """In percent of the dense model's exact FLOPs; None for the dense model."""
    return None if line["method"] == "dense" else 100 * (1 - line["exact_share"])


def measured_speedup(lines: Lines) -> Callable[[dict[str, Any]], float | None]:
    speedup = {(x["model"], x["method"], x["reduction"]): x["speedup"] for x in select(lines, part="speed")}

    return lambda line: speedup.get((line["model"], line["method"], line["reduction"]))


def main() -> None:
    lines = [line for line in read_results() if "out_of_reach" not in line]
    draw_summary(lines, DOCS / "accuracy_readme.png")
    draw(lines, DOCS / "accuracy_flops.png", saved_flops, "exact FLOPs saved, %", DATA)
    draw(lines, DOCS / "accuracy_time.png", measured_speedup(lines), "measured speed-up over dense", f"{DATA}\n{TIMES}")
    verdict = (DOCS / "verdict.md").read_text()
    page = f"""# Which pruning method is best, measured

Generated by `python -m benchmarks.report` from `docs/results.jsonl`, which `python -m benchmarks.study`
measured; its docstring gives the commands, its tables the settings of every name below. Accuracy is in percent of 10,000
test images. Reductions are of the exact FLOPs: all scan directions, aligned convolutions over every position, the
matching of pairs. An empty cell means that the method cannot reach that reduction, or was not run there. `hold 0.1`, and
`first order`, mean the form of hold that skimba 0.1 had; those runs are of its code, all others of the code as it is.

{verdict}
## Fashion-MNIST, no training

{by_method(lines, "methods", MODELS, sorted(REDUCTIONS))}
![Accuracy of every method against the exact FLOPs that it saves](accuracy_flops.png)

![Accuracy of every method against its measured speed-up](accuracy_time.png)

### Points lost, with intervals

Against the dense model on the same images; in brackets the 95 % interval of a paired bootstrap over the images. Runs from
before these were counted are not in this table.

{losses(lines, "methods", MODELS, sorted(REDUCTIONS), tuple(METHODS))}
### Fewer and fewer tokens

The share in the head is kept after each of the blocks 2, 4 and 6, so 0.2 leaves 2 of 196 tokens.

{sweep(lines)}
## Fashion scenes, no training

{by_method(lines, "scenes", SCENE_MODELS, (0.3, 0.4))}
{losses(lines, "scenes", SCENE_MODELS, (0.3, 0.4), tuple(METHODS))}
## More models, a harder set, no training

Points lost against the dense model on the same test images (10,000; of the clips 2,000), in brackets the 95 % interval of a
paired bootstrap. `benchmarks/subjects.py` says how each was trained; "20 classes" are scenes by the item and by whether the
photograph behind it shows a thing or a texture.

{families(lines)}
Points lost on every model of pictures, without calibration:

{everywhere(lines)}
## Ablations: 0.7 kept after blocks 2, 4 and 6 (0.5 where said), Fashion-MNIST, no training

{ablations(lines)}
## After fine-tuning, -40 %

"After" is one pass over a fixed subset of {FINE_TUNING_IMAGES:,} training images: the mean over the seeds ± the largest
deviation from it. "Full pass" is one over all 60,000 images. "dense" is the unpruned model after the same passes.

{fine_tuning(lines)}
## Measured speed-up over dense, batch 50

{speeds(lines)}"""
    (DOCS / "results.md").write_text(page)
    write_dense_page(DOCS)
    between = re.escape(BEGIN) + ".*?" + re.escape(END)
    README.write_text(re.sub(between, lambda _: BEGIN + readme(lines) + END, README.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main()
