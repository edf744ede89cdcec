"""Time of one image against its size and against the share of tokens kept: docs/speed.json, docs/speed.png and
docs/speed_kept.png.

    python -m benchmarks.speed

Times are `skimba bench`'s: float32, one image at a time, random weights, medians over rounds in which all cases take turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from skimba.ops import native
from skimba.pruning import paper_schedule
from skimba.reports.bench import PRUNED, Timing, bench
from skimba.reports.doctor import examine
from skimba.store import create_model

VIM, DEIT = "vim_small_patch16_224", "deit_small_patch16_224"
SIZES = (224, 320, 448, 640, 768, 1024)
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)


def measure_sizes(name: str, rival: str, sizes: Sequence[int], rounds: int) -> list[Timing]:
    """A model, dense and pruned as the paper prunes it, and a rival, at several image sizes (pixels)."""
    return bench([name, rival], ["dense", "top"], ["fp32"], [1], list(sizes), rounds)


def measure_shares(name: str, shares: Sequence[float], rounds: int) -> dict[str, list[Timing]]:
    """A model at its own image size, by preset: dense, then pruned to each share at every stage of the paper's schedule."""
    stages = paper_schedule(create_model(name))
    found = {}
    for preset in ("top", "hold"):
        cases = {f"{preset}, {s}": {"preset": preset, "keep": dict.fromkeys(stages, s)} for s in shares}
        found[preset] = bench([name], ["dense", *cases], ["fp32"], [1], [None], rounds, pruned=PRUNED | cases)
    return found


def draw_sizes(timings: Sequence[Timing], path: Path) -> None:
    """Time against image size, both logarithmic; a line for each model and case."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, case in dict.fromkeys((t.model, t.case) for t in timings):
        line = [t for t in timings if (t.model, t.case) == (name, case)]
        axes.loglog([t.img_size for t in line], [t.time_ms for t in line], marker="o", label=f"{name}, {case}")
    sizes = sorted({t.img_size for t in timings})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="side of the image (pixels)", ylabel="time of one image (ms)")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def draw_shares(timings: dict[str, list[Timing]], shares: Sequence[float], path: Path) -> None:
    """Speed-up over the dense model against the share kept, and what the exact FLOPs promise."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for preset, (dense, *pruned) in timings.items():
        measured = [t.speedup or 0 for t in pruned]
        color = axes.plot([1, *shares], [1, *measured], marker="o", label=preset)[0].get_color()
        promised = [(dense.exact_gflops or 0) / (t.exact_gflops or 1) for t in pruned]
        axes.plot([1, *shares], [1, *promised], linestyle=":", color=color, label=f"{preset}, by exact FLOPs")
    axes.invert_xaxis()
    axes.set(xlabel="share of tokens kept at each stage", ylabel="speed-up over dense")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def write(folder: Path, name: str, rival: str, sizes: Sequence[int], shares: Sequence[float], rounds: int) -> None:
    """Measure, and write ``speed.json``, ``speed.png`` and ``speed_kept.png``."""
    by_size, by_share = measure_sizes(name, rival, sizes, rounds), measure_shares(name, shares, rounds)
    folder.mkdir(parents=True, exist_ok=True)
    draw_sizes(by_size, folder / "speed.png")
    draw_shares(by_share, shares, folder / "speed_kept.png")
    found = {
        "machine": examine(),
        "rounds": rounds,
        "sizes": [asdict(t) for t in by_size],
        "shares": {preset: [asdict(t) for t in timings] for preset, timings in by_share.items()},
    }
    (folder / "speed.json").write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time against image size and against the share of tokens kept.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the results")
    parser.add_argument("--rounds", type=int, default=9, help="how often each case runs")
    arguments = parser.parse_args()
    native.keep_freed_memory()
    write(arguments.out, VIM, DEIT, SIZES, SHARES, arguments.rounds)


if __name__ == "__main__":
    main()
