"""The demo of detectors and segmenters: their figures on held-back scenes, cost and time, dense and pruned, on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image

from skimba.cost.flops import count_flops
from skimba.cost.timing import speedup, timed
from skimba.data import Pictures, SceneMaps, SceneObjects, embedded_test_images, select
from skimba.data.loading import in_order, load_batches
from skimba.data.scene_targets import dense_scenes
from skimba.dense import DenseModel
from skimba.pruning import prune
from skimba.reports.demo import STAGES, TITLES
from skimba.store.create import make_model
from skimba.tasks import task_of

SHARE = 0.7  # kept at each stage
SCENES = 100  # that are measured: four models see each
DRAWN = 3
SIDE = 384  # px of a drawing in the picture
MODELS = ("plain_mamba_micro", "vim_micro")  # whose weights are in the package
# By what the demo is asked: the kind of model, its pictures, and which figures the table shows under which names.
KINDS: dict[str, tuple[str, Callable[..., Pictures], dict[str, str]]] = {
    "detect": (
        "mask_rcnn",
        SceneObjects,
        {"box_ap": "box AP", "box_ap50": "box AP50", "mask_ap": "mask AP", "mask_ap50": "mask AP50"},
    ),
    "segment": ("upernet", SceneMaps, {"miou": "mIoU", "pixel_accuracy": "pixels right"}),
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        model, method: their names; ``"dense"`` is the model unpruned.
        figures: of the task, on the scenes measured (:meth:`skimba.tasks.Task.measure`).
        backbone_gflops, exact_gflops: of the backbone and of the whole, for one scene.
        time_ms: for one scene by itself, median.
        speedup: over the dense model, median.
    """

    model: str
    method: str
    figures: dict[str, Any]
    backbone_gflops: float
    exact_gflops: float
    time_ms: float
    speedup: float


def variants(model: DenseModel) -> dict[str, DenseModel]:
    """The dense model and its pruned forms."""
    return {"dense": model} | {t: prune(model, m, dict.fromkeys(STAGES, SHARE)) for t, m in TITLES.items()}


def measure(asked: str, name: str, on_scene: Callable[[], None] | None = None) -> tuple[list[Row], Image.Image]:
    """All variants of one model on the same scenes, each scene through every variant in turn; and drawings of some: dense on the
    left, ``hold`` on the right.

    Args:
        asked: a key of KINDS.
    """
    kind, opened, _ = KINDS[asked]
    dense = make_model(kind, name, "scenes").eval()
    assert isinstance(dense, DenseModel)
    models, task = variants(dense), task_of(dense)
    scenes = select(opened(dense_scenes(embedded_test_images(), "test")), range(SCENES))
    rows: dict[str, list[Any]] = {title: [] for title in models}
    times: dict[str, list[float]] = {title: [] for title in models}
    with torch.inference_mode():
        for number, batch in enumerate(load_batches(scenes, task.reader(dense), in_order(SCENES, 1), 0)):
            for title, model in models.items():
                if number == 0:  # warm up
                    task.predict(model, scenes, batch)
                seconds, found = timed(partial(task.predict, model, scenes, batch))
                rows[title] += found
                times[title].append(seconds)
            if on_scene is not None:
                on_scene()
    table = [
        _row(name, title, model, task.measure(rows[title], scenes), times[title], times["dense"])
        for title, model in models.items()
    ]
    shown = [rows["dense"][:DRAWN], rows[next(t for t, m in TITLES.items() if m == "hold")][:DRAWN]]
    return table, _beside([[task.draw(scenes.picture(row.index), row) for row in column] for column in shown])


def _row(
    name: str, title: str, model: DenseModel, figures: dict[str, Any], times: list[float], dense: list[float]
) -> Row:
    count = count_flops(model, convention="exact")
    time_ms = 1e3 * statistics.median(times)
    return Row(name, title, figures, count.by_part["backbone"] / 1e9, count.total / 1e9, time_ms, speedup(dense, times))


def _beside(columns: list[list[Image.Image]]) -> Image.Image:
    """Pictures in columns."""
    whole = Image.new("RGB", (SIDE * len(columns), SIDE * len(columns[0])), "white")
    for x, column in enumerate(columns):
        for y, picture in enumerate(column):
            whole.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x * SIDE, y * SIDE))
    return whole
