"""What the results of the dense study say, in words that follow the numbers."""

from __future__ import annotations

from typing import Any

from benchmarks.dense_study import CALIBRATED, FIGURES, IMAGES, MODELS, REDUCTIONS, STORM, usual
from benchmarks.tables import Lines, select

CONDENSED = ("condensed", "r_meeto", "tome", "mtr", "tor")  # rivals whose left tokens close up
CLAIM = 0.5  # points that the paper's pruned backbones lose
AT = REDUCTIONS[0]
FURTHER = 0.4


def verdict(lines: Lines) -> str:
    """A paragraph for each task and backbone that was measured; empty where none was."""
    found = [_of_model(lines, task, model) for task in FIGURES for model in MODELS]
    paragraphs = [one for one in found if one]
    return "## In words\n\n" + "\n\n".join(paragraphs) + "\n" if paragraphs else ""


def _of_model(lines: Lines, task: str, model: str) -> str:
    name, said = next(iter(FIGURES[task].items()))
    runs = select(lines, part=task, model=model)
    images = max((run["images"] for run in runs if run["method"] == "dense"), default=0)
    runs_here = {count: select(runs, images=count) for count in {run["images"] for run in runs}}
    dense = {count: select(own, method="dense") for count, own in runs_here.items()}

    def lost(method: str, reduction: float | None = AT) -> float | None:
        """Points against the dense model, on as many scenes as both were measured on."""
        for count in sorted(runs_here, reverse=True):
            own = select(runs_here[count], method=method, reduction=reduction, restore=usual(method))
            if own and dense[count]:
                return 100 * float(dense[count][0][name] - own[0][name])
        return None

    claimed = {method: lost(method) for method in ("hold", "top")}
    if not images or None in claimed.values():
        return ""
    parts = [
        f"**{task.capitalize()}, `{model}`.** With {AT:.0%} of the backbone's FLOPs saved ({_of_blocks(runs)} of its blocks') "
        "and no training, "
        + " and ".join(f"`{method}` {_change(loss, f' of {said}')}" for method, loss in claimed.items())
        + f" (dense: {100 * dense[images][0][name]:.1f}). The paper's claim, that dense tasks lose at most {CLAIM} points, "
        + _judged(claimed)
    ]
    for method in claimed:
        if (further := lost(method, FURTHER)) is not None:
            parts.append(f"At -{FURTHER:.0%}, `{method}` {_change(further)}.")
    if (calibrated := lost(CALIBRATED, FURTHER)) is not None:
        parts.append(f"At -{FURTHER:.0%} with its stages chosen on unlabelled scenes, `hold` {_change(calibrated)}.")
    for line in select(lines, part="fine-tuning", task=task, model=model):
        if line["method"] != "dense":
            own = 100 * float(dense[line["images"]][0][name] - line[name])
            after = f"After one pass of fine-tuning at -{line['reduction']:.0%}"
            parts.append(f"{after}, `{line['method']}` {_change(own)} against the dense model as it was.")
    rivals = {method: loss for method in CONDENSED if (loss := lost(method)) is not None}
    if rivals:
        best = min(rivals, key=lambda method: rivals[method])
        parts.append(f"The best condensed rival, `{best}`, {_change(rivals[best])}.")
    storm = {method: loss for method in STORM if (loss := lost(method, None)) is not None}
    for method, loss in storm.items():
        share = select(runs, method=method)[0]["backbone_share"]
        parts.append(f"`{method}` {_change(loss)} while saving {100 * (1 - share):.0f} %.")
    restores = _restores(runs, name)
    for method, ranked in restores.items():
        parts.append(
            f"Under `{method}` the restores rank {', '.join(f'`{way}` ({100 * x:.1f})' for way, x in ranked)}."
        )
    return "\n".join(parts)


def _of_blocks(runs: Lines) -> str:
    return f"{1 - select(runs, method='hold', reduction=AT)[0]['blocks_share']:.0%}"


def _change(loss: Any, of: str = "") -> str:
    points = round(float(loss), 1)
    return (
        f"loses {points:.1f} points{of}"
        if points > 0
        else f"gains {-points:.1f} points{of}"
        if points
        else "loses nothing"
    )


def _judged(losses: dict[str, Any]) -> str:
    """The claim is of fine-tuned models; these are not trained after pruning."""
    holding = [f"`{method}`" for method, loss in losses.items() if loss <= CLAIM]
    if not holding:
        return "does not hold here without training."
    return f"holds here for {' and '.join(holding)}, without training."


def _restores(runs: Lines, name: str) -> dict[str, list[tuple[str, float]]]:
    """For the methods that were restored in several ways on the first scenes: the figure of each way, best first."""
    ranked = {}
    for method in ("hold", "top"):
        own = select(runs, method=method, reduction=AT, images=IMAGES)
        shown = [(run["restore"], run[name]) for run in own]
        if len(shown) > 1:
            ranked[method] = sorted(shown, key=lambda way: -way[1])
    return ranked
