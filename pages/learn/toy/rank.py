"""Rank 1 on the toy layer: all neurons on one common line."""

from __future__ import annotations

import numpy as np

from pages.learn.toy.layer import Array


def on_line(weight: Array, gram: Array, degrees: float) -> Array:
    """(neurons, 2) every neuron moved to the line at `degrees`, at the length that loses least output.

    With the line's direction v the lengths are W H v / (vᵀ H v), H = Xᵀ X.
    """
    v = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    pull = gram @ v
    return np.outer(weight @ pull / float(v @ pull), v)


def whitened(weight: Array, gram: Array) -> Array:
    """The rank-1 layer that loses least output: SVD of W L with H = L Lᵀ, U₁U₁ᵀ W (SVD-LLM, arXiv:2403.07378)."""
    left = np.linalg.svd(weight @ np.linalg.cholesky(gram), full_matrices=False)[0][:, :1]
    return left @ (left.T @ weight)


def direction(layer: Array) -> float:
    """The line's direction of a rank-1 layer, 0 to 180 degrees."""
    longest = layer[np.argmax((layer**2).sum(axis=1))]
    return float(np.degrees(np.arctan2(longest[1], longest[0]))) % 180.0
