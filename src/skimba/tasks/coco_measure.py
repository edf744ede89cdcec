"""COCO's figures, by its own tools (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from skimba.data import InstanceFiles, Pictures, Selected, as_coco
from skimba.runtime.names import escape

# COCO's twelve, in the order of its tools: average precision and recall, over overlaps of 0.5 … 0.95 unless one is named; of
# small (below 32² pixels), medium and large (96² and more) objects; recall with so many detections of a picture.
FIGURES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl",
    "ar1": "AR1", "ar10": "AR10", "ar100": "AR100", "ar_small": "ARs", "ar_medium": "ARm", "ar_large": "ARl",
}  # fmt: skip
KINDS = {"box": "bbox", "mask": "segm"}  # as COCO's tools name them
NONE = -1.0  # COCO's value where there is no object of that size


class Found(Protocol):
    """A picture's objects, as :class:`skimba.tasks.detection.Detections` has them."""

    @property
    def index(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def boxes(self) -> tuple[tuple[float, ...], ...]: ...
    @property
    def labels(self) -> tuple[int, ...]: ...
    @property
    def scores(self) -> tuple[float, ...]: ...
    @property
    def masks(self) -> tuple[str, ...]: ...


def measure_coco(rows: Sequence[Found], pictures: Pictures) -> dict[str, Any]:
    """``box_ap … box_ar_large``, ``mask_ap …`` in 0 … 1 (None where there is no object of that size), the AP of each class, and
    the number of ``images``.

    Raises:
        ValueError: the pictures have no boxes and masks.
        ImportError: pycocotools is not installed (``pip install 'skimba[detection]'``).
    """
    if not rows or isinstance(pictures.target(rows[0].index), int):
        raise ValueError("the pictures have no boxes and masks; use skimba predict for them")
    coco, evaluator = _tools()
    figures: dict[str, Any] = {}
    of_class: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # the tools report what they do
        truth = coco()
        truth.dataset = as_coco(Selected(pictures, [row.index for row in rows]))
        truth.createIndex()
        results = results_of(rows, range(len(rows)))
        found = truth.loadRes(results) if results else _empty(coco, truth)
        for name, kind in KINDS.items():
            run = evaluator(truth, found, kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
            values = [None if value == NONE else float(value) for value in run.stats]
            figures |= dict(zip([f"{name}_{figure}" for figure in FIGURES], values, strict=True))
            of_class[f"{name}_ap_of_class"] = _of_class(run.eval["precision"], pictures.classes)
    return {**figures, **of_class, "images": len(rows)}


def results_of(
    rows: Sequence[Found], image_ids: Sequence[int | str], category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """COCO's format of results.

    Args:
        image_ids: of the rows.
        category_ids: of the classes; None: their places.
    """
    return [
        {
            "image_id": image_id,
            "category_id": label if category_ids is None else category_ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
            "segmentation": {"size": [row.height, row.width], "counts": mask},
        }
        for row, image_id in zip(rows, image_ids, strict=True)
        for (x0, y0, x1, y1), label, score, mask in zip(row.boxes, row.labels, row.scores, row.masks, strict=True)
    ]


def named_results(rows: Sequence[Found], pictures: Pictures) -> list[dict[str, Any]]:
    """COCO's format of results, with the ids of COCO's own file, or with the names of other pictures."""
    if isinstance(pictures, InstanceFiles):
        return results_of(rows, [pictures.image_ids[row.index] for row in rows], pictures.category_ids)
    names = {row.index: pictures.name(row.index) for row in rows}
    found = results_of(rows, [row.index for row in rows])
    return [{**one, "file_name": escape(names[one["image_id"]])} for one in found]


def describe_coco(figures: Mapping[str, Any]) -> str:
    """A table: boxes and masks in rows, COCO's twelve figures in columns, in per cent."""
    lines = [f"{figures['images']} images", "      " + " ".join(f"{head:>5}" for head in FIGURES.values())]
    for name in KINDS:
        values = [figures[f"{name}_{figure}"] for figure in FIGURES]
        cells = ["    -" if value is None else f"{100 * value:5.1f}" for value in values]
        lines.append(f"{name:<5} " + " ".join(cells))
    return "\n".join(lines)


def _of_class(precision: Any, classes: Sequence[str]) -> dict[str, float]:
    """AP by class, of those that occur; ``precision`` is ``(overlap recall class size detections)``."""
    found = {}
    for name, values in zip(classes, np.moveaxis(precision[:, :, :, 0, -1], 2, 0), strict=True):
        if (known := values[values > NONE]).size:
            found[name] = float(known.mean())
    return found


def _empty(coco: Any, truth: Any) -> Any:
    """No detection in any picture, which the tools cannot load."""
    found = coco()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found


def _tools() -> tuple[Any, Any]:
    try:  # here, since it is an extra
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("COCO's figures need pycocotools: pip install 'skimba[detection]'") from error
    return COCO, COCOeval
