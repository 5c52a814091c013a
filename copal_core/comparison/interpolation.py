"""A cubic through points that never overshoots them (Fritsch and Carlson's monotone Hermite cubic)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def monotone_cubic(x: Array, y: Array, at: Array) -> Array:
    """Values at `at` (within x) of the monotone cubic through (x, y); x strictly increasing."""
    if len(x) == 1:
        return np.full(at.shape, y[0])
    step = np.diff(x)
    slope = np.diff(y) / step  # (n - 1,)
    tangent = _tangents(step, slope)
    place = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h, t = step[place], (at - x[place]) / step[place]
    return (
        (1 + 2 * t) * (1 - t) ** 2 * y[place]
        + t * (1 - t) ** 2 * h * tangent[place]
        + t**2 * (3 - 2 * t) * y[place + 1]
        + t**2 * (t - 1) * h * tangent[place + 1]
    )


def _tangents(step: Array, slope: Array) -> Array:
    """Weighted harmonic means of the neighbouring slopes, 0 where they change sign; (n,)."""
    tangent = np.empty(len(slope) + 1)
    tangent[0], tangent[-1] = slope[0], slope[-1]
    before, after = slope[:-1], slope[1:]
    wide, narrow = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    same = before * after > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (wide + narrow) / (wide / before + narrow / after)
    tangent[1:-1] = np.where(same, mean, 0.0)
    return tangent
