"""Time of one image against its size and against the share of tokens kept: docs/speed.json, docs/speed.png and
docs/speed_kept.png.

    python -m benchmarks.speed           # measures, then draws
    python -m benchmarks.speed --draw    # draws what was measured

Times are `skimba bench`'s: float32, one image at a time, random weights, medians over rounds in which all cases take turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.plots import BLACK, BLUE, FONT, GREEN, ORANGE, WIDTH, describe, new_figure, save
from skimba.insight.style import label_ends
from skimba.ops import native
from skimba.pruning import paper_schedule
from skimba.reports.bench import PRUNED, Timing, bench
from skimba.reports.doctor import examine
from skimba.store import create_model

VIM, DEIT = "vim_small_patch16_224", "deit_small_patch16_224"
SIZES = (224, 320, 448, 640, 768, 1024)
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)
SHORT = {VIM: "Vim-S", DEIT: "DeiT-S"}
COLORS = {"dense": BLACK, "top": ORANGE, "hold": BLUE}
RIVAL_COLOR = GREEN
KEPT = "share of tokens kept after blocks 5, 10 and 15"
HALF = WIDTH / 2  # two pictures side by side


def measure_sizes(name: str, rival: str, sizes: Sequence[int], rounds: int) -> list[Timing]:
    """A model, dense and pruned as the paper prunes it, and a rival, at several image sizes (pixels)."""
    return bench([name, rival], ["dense", "top"], ["fp32"], [1], list(sizes), rounds)


def measure_shares(name: str, shares: Sequence[float], rounds: int) -> dict[str, list[Timing]]:
    """A model at its own image size, by method: dense, then pruned to each share at every stage of the paper's schedule."""
    stages = paper_schedule(create_model(name))
    found = {}
    for method in ("top", "hold"):
        cases = {f"{method}, {s}": {"method": method, "schedule": dict.fromkeys(stages, s)} for s in shares}
        found[method] = bench([name], ["dense", *cases], ["fp32"], [1], [None], rounds, pruned=PRUNED | cases)
    return found


def draw_sizes(timings: Sequence[Timing], path: Path, note: str) -> None:
    """Time against image size, both logarithmic; a line for each model and case."""
    figure, (axes,) = new_figure(3.6, width=HALF)
    ends = []
    for name, case in dict.fromkeys((t.model, t.case) for t in timings):
        color = COLORS[case] if name == timings[0].model else RIVAL_COLOR
        line = [t for t in timings if (t.model, t.case) == (name, case)]
        axes.loglog([t.img_size for t in line], [t.time_ms for t in line], marker="o", markersize=4, color=color)
        title = SHORT.get(name, name) if name != timings[0].model else f"{SHORT.get(name, name)} {case}"
        ends.append((f"{title}\n{line[-1].time_ms:.0f} ms", line[-1].img_size, line[-1].time_ms, color))
    sizes = sorted({t.img_size for t in timings})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    describe(axes, "Time of one image", "side of the image, pixels", "ms")
    label_ends(axes, ends, FONT, lines=2)
    save(figure, path, note, {})


def draw_shares(timings: dict[str, list[Timing]], shares: Sequence[float], path: Path, note: str) -> None:
    """Speed-up over the dense model against the share kept, and what the exact FLOPs promise."""
    figure, (axes,) = new_figure(3.6, width=HALF)
    ends = []
    for method, (dense, *pruned) in timings.items():
        promised = [(dense.exact_gflops or 0) / (t.exact_gflops or 1) for t in pruned]
        axes.plot([1, *shares], [1, *promised], linestyle=":", color=BLACK, linewidth=1)
        measured = [t.speedup or 0 for t in pruned]
        axes.plot([1, *shares], [1, *measured], marker="o", markersize=4, color=COLORS[method])
        ends.append((method, shares[-1], measured[-1], COLORS[method]))
    ends.append(("by exact FLOPs", shares[-1], promised[-1], BLACK))
    axes.invert_xaxis()
    describe(axes, f"{SHORT.get(dense.model, dense.model)} pruned, {dense.img_size} px", KEPT, "speed-up over dense")
    label_ends(axes, ends, FONT)
    save(figure, path, note, {})


def measure(name: str, rival: str, sizes: Sequence[int], shares: Sequence[float], rounds: int) -> dict[str, Any]:
    """All that the pictures show, as plain data."""
    by_size, by_share = measure_sizes(name, rival, sizes, rounds), measure_shares(name, shares, rounds)
    return {
        "machine": examine(),
        "rounds": rounds,
        "sizes": [asdict(t) for t in by_size],
        "shares": {method: [asdict(t) for t in timings] for method, timings in by_share.items()},
    }


def draw(folder: Path, found: dict[str, Any]) -> None:
    """``speed.png`` and ``speed_kept.png`` of what :func:`measure` found."""
    by_size = [Timing(**t) for t in found["sizes"]]
    by_share = {method: [Timing(**t) for t in timings] for method, timings in found["shares"].items()}
    machine = found["machine"]
    simd = machine["instruction set"].split()[0]
    note = f"float32, batch 1, random weights, {machine['torch threads']} threads, {simd}; medians of {found['rounds']} rounds"
    draw_sizes(by_size, folder / "speed.png", note)
    draw_shares(by_share, [float(t.case.split()[-1]) for t in by_share["top"][1:]], folder / "speed_kept.png", note)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time against image size and against the share of tokens kept.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the results")
    parser.add_argument("--rounds", type=int, default=9, help="how often each case runs")
    parser.add_argument("--draw", action="store_true", help="only draw the speed.json that is in the folder")
    arguments = parser.parse_args()
    results = arguments.out / "speed.json"
    if not arguments.draw:
        native.keep_freed_memory()
        arguments.out.mkdir(parents=True, exist_ok=True)
        found = measure(VIM, DEIT, SIZES, SHARES, arguments.rounds)
        results.write_text(json.dumps(found, indent=1) + "\n")
    draw(arguments.out, json.loads(results.read_text()))


if __name__ == "__main__":
    main()
