"""Reading maps at any places: the inner part of deformable attention."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from skimba.ops.backends import Backend, run
from skimba.ops.inputs import SAMPLE, SampleInputs
from skimba.ops.library import SAMPLE_MAPS


def sample_maps(
    value: Tensor,
    grids: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Weighted sums of values read, bilinearly, at any places of several maps.

    Args:
        value: ``(b m heads c)``: the cells of all maps, one map after the other, each in raster order.
        grids: height and width of each map.
        locations: ``(b q heads maps points 2)``: x and y in shares of a map's width and height; cells outside of it are zero.
        weights: ``(b q heads maps points)``.
        backend: as of :func:`skimba.ops.selective_scan`. The gradient is always that of the reference.

    Returns:
        ``(b q heads*c)`` in the dtype of ``value``; sums are made in float32 (float64 for float64 values).

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`skimba.ops.selective_scan`; ValueError for grids that are not those of
        the maps.

    Source: the operator of Deformable DETR (arXiv 2010.04159, equation 3; github fundamentalvision/Deformable-DETR).
    """
    sides = [side for grid in grids for side in grid]
    inputs = SampleInputs(value, locations, weights, sides)
    SAMPLE.check(inputs)
    if locations.shape[-1] != 2:
        raise ValueError(f"locations must be (b q heads maps points 2), got {tuple(locations.shape)}")
    cells = sum(height * width for height, width in grids)
    if len(grids) != weights.shape[3] or min(sides) < 1 or cells != value.shape[1]:
        raise ValueError(
            f"grids must be height and width of {weights.shape[3]} maps with {value.shape[1]} cells in all, got {list(grids)}"
        )
    return run(SAMPLE_MAPS, inputs, backend)
