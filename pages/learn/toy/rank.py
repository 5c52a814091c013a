"""Rank 1 on the toy layer: all neurons on one common line."""

from __future__ import annotations

import numpy as np

from pages.learn.toy.layer import Array


def on_line(weight: Array, gram: Array, degrees: float) -> Array:
    """Move every neuron to the line at `degrees`, with the length that loses least output; (neurons, 2).

    For the line's direction v the lengths are W H v / (vᵀ H v), H = XᵀX.
    """
    v = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    pull = gram @ v
    return np.outer(weight @ pull / float(v @ pull), v)


def whitened(weight: Array, gram: Array) -> Array:
    """Return the rank-1 layer that loses least output, U₁U₁ᵀ W from the SVD of W L, H = L Lᵀ (arXiv:2403.07378)."""
    left = np.linalg.svd(weight @ np.linalg.cholesky(gram), full_matrices=False)[0][:, :1]
    return left @ (left.T @ weight)


def direction(layer: Array) -> float:
    """Return the direction of a rank-1 layer's line, 0 to 180 degrees."""
    longest = layer[np.argmax((layer**2).sum(axis=1))]
    return float(np.degrees(np.arctan2(longest[1], longest[0]))) % 180.0
