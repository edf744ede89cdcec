"""Tables of the study's results, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.compared import (
    ABLATIONS,
    CLIP_REDUCTIONS,
    FAMILY,
    FAMILY_REDUCTIONS,
    FINE_TUNED,
    KEPT,
    METHODS,
    REDUCTIONS,
    SWEPT,
)
from benchmarks.intervals import loss_interval
from benchmarks.study import FURTHER, MODELS, SCENE_MODELS
from benchmarks.subjects import SUBJECTS

Lines = list[dict[str, Any]]
MISSING = ""
MEAN_DROPS = {0.3: "mean drop at -30 %", 0.4: "at -40 %", 0.5: "at -50 %"}
# Methods in the README's table: the paper's, and those that others published, none of which aligns anything.
PAPER = "top"
PUBLISHED = {
    "evit": "EViT",
    "condensed": "EViT, in scan order",
    "tome": "ToMe",
    "r_meeto": "R-MeeTo",
    "tor": "ToR",
    "mtr": "MTR",
    "local": "windows, after STORM",
    "random": "random tokens",
    "uniform": "even tokens",
}


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


def drops(lines: Lines, models: Mapping[str, str], method: str, reduction: float) -> list[float]:
    """Points lost against dense by each of the models, given with their parts; empty unless all of them have run."""
    found = []
    for model, part in models.items():
        dense = select(lines, part=part, model=model, method="dense")
        own = select(lines, part=part, model=model, method=method, reduction=reduction)
        if not dense or not own:
            return []
        found.append(100 * (dense[0]["accuracy"] - own[0]["accuracy"]))
    return found


def mean_drop(lines: Lines, part: str, models: Sequence[str], method: str, reduction: float) -> str:
    """Points lost against dense, mean over the models; missing unless all of them have run."""
    found = drops(lines, dict.fromkeys(models, part), method, reduction)
    return f"{statistics.mean(found):.1f}" if found else MISSING


def by_method(lines: Lines, part: str, models: Sequence[str], reductions: Sequence[float]) -> str:
    """Accuracy of every method on every model, best first by the mean drop at 40 %."""
    head = ["method", *(f"{model} -{r:.0%}" for model in models for r in reductions), *MEAN_DROPS.values()]
    rows = []
    for method in METHODS:
        cells = [
            percent(select(lines, part=part, model=model, method=method, reduction=reduction))
            for model in models
            for reduction in reductions
        ]
        means = [mean_drop(lines, part, models, method, reduction) for reduction in MEAN_DROPS]
        if any(cell != MISSING for cell in cells):
            rows.append([method, *cells, *means])
    rows.sort(key=lambda row: float(row[-2]) if row[-2] != MISSING else 100.0)
    dense = [percent(select(lines, part=part, model=model, method="dense")) for model in models for _ in reductions]
    return table(head, [["dense", *dense, *[""] * len(MEAN_DROPS)], *rows])


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


def families(lines: Lines) -> str:
    """Points lost by each further model, with their intervals, a row for each reduction."""
    rows = []
    for model in FURTHER:
        own = select(lines, part="families", model=model)
        for reduction in sorted({*FAMILY_REDUCTIONS, *CLIP_REDUCTIONS}):
            found = [loss(select(own, method=method, reduction=reduction)) for method in FAMILY]
            if any(found):
                dense = percent(select(own, method="dense"))
                rows.append([model, SUBJECTS[model].data, dense, f"-{reduction:.0%}", *found])
    return table(["model", "data", "dense", "exact FLOPs", *FAMILY], rows)


def everywhere(lines: Lines) -> str:
    """Points that a method loses on every model of pictures, and their mean: of methods that all of them were pruned by."""
    models = {**dict.fromkeys(MODELS, "methods"), **dict.fromkeys(SCENE_MODELS, "scenes")}
    models |= {model: "families" for model in FURTHER if SUBJECTS[model].data != "clips"}
    models = {model: part for model, part in models.items() if select(lines, part=part, model=model, method="dense")}
    rows = []
    for method in FAMILY:
        for reduction in (0.3, 0.4):
            if found := drops(lines, models, method, reduction):
                mean = f"**{statistics.mean(found):.1f}**"
                rows.append([method, f"-{reduction:.0%}", *(f"{points:.1f}" for points in found), mean])
    return table(["method", "exact FLOPs", *models, "mean"], rows)


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


def readme(lines: Lines) -> str:
    """Ours, the paper's and the best other method at every reduction that ours was measured at on both models."""
    head = [
        "exact FLOPs",
        *(cell for m in MODELS for cell in (f"`{m}`: `hold`", "`top` (the paper's)", "best other as published")),
    ]
    rows = [
        [
            "dense",
            *(
                cell
                for m in MODELS
                for cell in (_share(select(lines, part="methods", model=m, method="dense")), "", "")
            ),
        ]
    ]
    for reduction in REDUCTIONS:
        cells = []
        for model in MODELS:
            here = select(lines, part="methods", model=model, reduction=reduction)
            ours, paper = (_share(select(here, method=method)) for method in ("hold", PAPER))
            others = [line for line in here if line["method"] in PUBLISHED]
            best = max(others, key=lambda line: line["accuracy"], default=None)
            named = MISSING if best is None else f"{_share([best])} ({PUBLISHED[best['method']]})"
            cells += [f"**{ours}**" if ours else MISSING, paper, named]
        if all(cells[:: len(cells) // len(MODELS)]):
            rows.append([f"-{reduction:.0%}".replace("%", " %"), *cells])
    return table(head, rows)


def _share(lines: Lines) -> str:
    return f"{percent(lines)} %" if lines else MISSING
