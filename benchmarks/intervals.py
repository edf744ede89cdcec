"""Intervals of a difference between two models that saw the same images."""

from __future__ import annotations

import numpy as np

DRAWS = 10_000
COVERED = 0.95


def loss_interval(lost: int, gained: int, images: int) -> tuple[float, float]:
    """Points of accuracy lost by pruning, between the ends of a paired bootstrap's 95 % interval (percentiles).

    An image counts 1 where only the dense model is right, -1 where only the pruned one is, else 0; so a sample of the images,
    drawn with replacement, is told by how many of each kind are in it.

    Args:
        lost: images on which only the dense model is right.
        gained: images on which only the pruned one is.
        images: all of them.
    """
    share = np.array([lost, gained, images - lost - gained]) / images
    drawn = np.random.default_rng(0).multinomial(images, share, DRAWS)
    points = 100 * (drawn[:, 0] - drawn[:, 1]) / images
    low, high = np.quantile(points, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return float(low), float(high)
