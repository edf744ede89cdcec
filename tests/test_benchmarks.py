import json

import pytest

from benchmarks.speed import draw, measure
from skimba.insight.style import spread


def test_speed_is_measured_and_drawn(tmp_path):
    found = json.loads(json.dumps(measure("vim_micro", "test_vit", sizes=[32, 64], shares=[0.8, 0.5], rounds=1)))
    draw(tmp_path, found)
    assert [(t["model"], t["case"], t["img_size"]) for t in found["sizes"]] == [
        (name, case, size)
        for size in (32, 64)
        for name, case in (("vim_micro", "dense"), ("vim_micro", "top"), ("test_vit", "dense"))
    ]
    for method in ("top", "hold"):
        dense, *pruned = found["shares"][method]
        flops = [t["exact_gflops"] for t in (dense, *pruned)]
        assert flops == sorted(flops, reverse=True)
        assert [t["case"] for t in pruned] == [f"{method}, 0.8", f"{method}, 0.5"]
    for picture in ("speed.png", "speed_kept.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.52, 0.54], [0.42, 0.52, 0.62]),
        ([0.0, 0.01, 0.9], [-0.045, 0.055, 0.9]),
    ],
)
def test_labels_are_spread_as_little_as_it_takes(levels, expected):
    assert spread(levels, 0.1) == pytest.approx(expected)
