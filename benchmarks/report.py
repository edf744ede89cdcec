"""Writes docs/results.md and its pictures from docs/results.jsonl (see study.py) and docs/verdict.md, which is written by hand.

python -m benchmarks.report
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compared import ABLATIONS, FINE_TUNED, FINE_TUNING_IMAGES, KEPT, METHODS, REDUCTIONS, SWEPT
from benchmarks.intervals import loss_interval
from benchmarks.plots import BLACK, BLUE, FONT, GREEN, GREY, ORANGE, PINK, describe, new_figure, save
from benchmarks.study import MODELS, RESULTS, SCENE_MODELS, read_results
from skimba.insight.style import label_ends

DOCS = RESULTS.parent
Lines = list[dict[str, Any]]
MISSING = ""
# What a method does about missing tokens, and the colour of its lines.
HELD, DECAYED, CONDENSED, DISORDERED = "hold alignment", "decay alignment", "no alignment", "tokens out of scan order"
KEY = {HELD: BLUE, DECAYED: ORANGE, CONDENSED: GREY, DISORDERED: PINK}
MEANING = {
    HELD: tuple(method for method in METHODS if "hold" in method),
    DECAYED: ("top",),
    DISORDERED: ("evit", "tome"),
}
DRAWN = [method for method in METHODS if "0.1" not in method]
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def select(lines: Lines, **wanted: Any) -> Lines:
    return [line for line in lines if all(line[name] == value for name, value in wanted.items())]


def percent(lines: Lines) -> str:
    """Accuracy of one run, or mean ± largest distance from it over the seeds of one."""
    if not lines:
        return MISSING
    found = [100 * line["accuracy"] for line in lines]
    mean = statistics.mean(found)
    return f"{mean:.1f}" if len(found) == 1 else f"{mean:.1f} ± {max(abs(x - mean) for x in found):.1f}"


def mean_drop(lines: Lines, part: str, models: Sequence[str], method: str, reduction: float) -> str:
    """Points lost against dense, mean over the models; missing unless all of them have run."""
    drops = []
    for model in models:
        dense = select(lines, part=part, model=model, method="dense")
        found = select(lines, part=part, model=model, method=method, reduction=reduction)
        if not dense or not found:
            return MISSING
        drops.append(100 * (dense[0]["accuracy"] - found[0]["accuracy"]))
    return f"{statistics.mean(drops):.1f}"


def by_method(lines: Lines, part: str, models: Sequence[str], reductions: Sequence[float]) -> str:
    """Accuracy of every method on every model, best first by the mean drop at 40 %."""
    head = ["method", *(f"{model} -{r:.0%}" for model in models for r in reductions), "mean drop at -30 %", "at -40 %"]
    rows = []
    for method in METHODS:
        cells = [
            percent(select(lines, part=part, model=model, method=method, reduction=reduction))
            for model in models
            for reduction in reductions
        ]
        drops = [mean_drop(lines, part, models, method, reduction) for reduction in (0.3, 0.4)]
        if any(cell != MISSING for cell in cells):
            rows.append([method, *cells, *drops])
    rows.sort(key=lambda row: float(row[-1]) if row[-1] != MISSING else 100.0)
    dense = [percent(select(lines, part=part, model=model, method="dense")) for model in models for _ in reductions]
    return table(head, [["dense", *dense, "", ""], *rows])


def losses(lines: Lines, part: str, models: Sequence[str], reductions: Sequence[float], methods: Sequence[str]) -> str:
    """Points lost against dense with their intervals, for the runs that were compared image by image."""
    rows = []
    for method in methods:
        cells = [
            loss(select(lines, part=part, model=model, method=method, reduction=reduction))
            for model in models
            for reduction in reductions
        ]
        if any(cell != MISSING for cell in cells):
            rows.append([method, *cells])
    return table(["method", *(f"{model} -{r:.0%}" for model in models for r in reductions)], rows)


def loss(lines: Lines) -> str:
    if not lines or "lost" not in lines[0]:
        return MISSING
    lost, gained, images = (lines[0][name] for name in ("lost", "gained", "images"))
    low, high = loss_interval(lost, gained, images)
    return f"{100 * (lost - gained) / images:.1f} ({low:.1f} to {high:.1f})"


def sweep(lines: Lines) -> str:
    """Accuracy by the share kept after each of three blocks."""
    rows = []
    for method in SWEPT:
        found = [
            percent(select(lines, part="sweep", model=model, method=method, reduction=round(1 - kept, 2)))
            for model in MODELS
            for kept in KEPT
        ]
        rows.append([method, *found])
    return table(["method", *(f"{model} {kept}" for model in MODELS for kept in KEPT)], rows)


def ablations(lines: Lines) -> str:
    """Settings that nobody ran on any model are left out."""
    rows = [
        [method, *(percent(select(lines, part="ablations", model=model, method=method)) for model in MODELS)]
        for method in ABLATIONS
    ]
    return table(["settings", *MODELS], [row for row in rows if any(cell != MISSING for cell in row[1:])])


def fine_tuning(lines: Lines) -> str:
    rows = []
    for method, settings in FINE_TUNED.items():
        before = [
            select(
                lines,
                part="methods",
                model=m,
                method=method.removesuffix(" + teacher"),
                reduction=None if method == "dense" else 0.4,
            )
            for m in MODELS
        ]
        after = [select(lines, part="fine-tuning", model=m, method=method, reduction=0.4) for m in MODELS]
        whole = [select(lines, part="full-pass", model=m, method=method, reduction=0.4) for m in MODELS]
        teacher = "dense" if settings.get("teacher") else ""
        cells = [
            cell
            for b, a, w in zip(before, after, whole, strict=True)
            for cell in (percent(b), percent(a), str(len(a)), percent(w))
        ]
        rows.append([method.removesuffix(" + teacher"), teacher, *cells])
    head = ["method", "teacher", *(f"{m} {what}" for m in MODELS for what in ("before", "after", "seeds", "full pass"))]
    return table(head, rows)


def speeds(lines: Lines) -> str:
    head = ["method", *(f"{model} -{r:.0%}" for model in MODELS for r in REDUCTIONS)]
    rows = []
    for method in METHODS:
        found = [select(lines, part="speed", model=m, method=method, reduction=r) for m in MODELS for r in REDUCTIONS]
        if any(found):
            rows.append([method, *(f"{line[0]['speedup']:.2f}" if line else MISSING for line in found)])
    return table(head, rows)


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
    """Accuracy against FLOPs of our default, the paper's method and the published rivals: the picture of the README."""
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
            axes.plot(*zip(*points, strict=True), color=color, linewidth=3 if ours else 1.3, zorder=2 + ours)
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
matching of pairs. An empty cell means that the method cannot reach that reduction.

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

The share in the head is kept after each of the blocks 2, 4 and 6, so 0.2 leaves 2 to 4 of 196 tokens.

{sweep(lines)}
## Fashion scenes, no training

{by_method(lines, "scenes", SCENE_MODELS, (0.3, 0.4))}
{losses(lines, "scenes", SCENE_MODELS, (0.3, 0.4), tuple(METHODS))}
## Ablations: 0.7 kept after blocks 2, 4 and 6 (0.5 where said), Fashion-MNIST, no training

{ablations(lines)}
## After fine-tuning, -40 %

"After" is one pass over a fixed subset of {FINE_TUNING_IMAGES:,} training images: the mean over the seeds ± the largest
deviation from it. "Full pass" is one over all 60,000 images. "dense" is the unpruned model after the same passes.

{fine_tuning(lines)}
## Measured speed-up over dense, batch 50

{speeds(lines)}"""
    (DOCS / "results.md").write_text(page)


if __name__ == "__main__":
    main()
