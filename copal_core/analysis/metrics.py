"""Continual-learning and mask metrics: pure functions of a perplexity matrix and of counts.

`R` is (T + 1, T): R[t, i] is the perplexity on domain i after step t, and row 0 is the dense model.
Steps and domains run from 1 to T in the text and from 0 in the columns, as in the papers. Perplexity is
better when it is lower, so every difference below is better when it is lower, and 0 means nothing changed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from copal_core.errors import InvalidValueError

Matrix = NDArray[np.float64]


def check_matrix(matrix: Matrix) -> Matrix:
    """`matrix` as float64 (T + 1, T). Raises InvalidValueError for another shape."""
    R = np.asarray(matrix, dtype=np.float64)
    if R.ndim != 2 or R.shape[0] != R.shape[1] + 1 or R.shape[1] < 1:
        raise InvalidValueError(f"a perplexity matrix has shape (T + 1, T), got {R.shape}")
    return R


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT = 1/(T-1) Σ_{i<T} (R[T, i] − R[i, i]), in perplexity: lower is better, 0 is nothing forgotten, below 0
    earlier domains improved. None for a single domain, where it is not defined."""
    R = check_matrix(matrix)
    T = R.shape[1]
    if T < 2:
        return None
    return float(np.mean([R[T, i] - R[i + 1, i] for i in range(T - 1)]))


def average_perplexity(matrix: Matrix) -> float:
    """Mean over the domains of the last row: where the model stands at the end."""
    return float(check_matrix(matrix)[-1].mean())


def forgetting(matrix: Matrix) -> NDArray[np.float64]:
    """(T,) R[T, i] − min over t ≥ i of R[t, i]: what each domain lost since its best moment."""
    R = check_matrix(matrix)
    return np.array([R[-1, i] - R[i + 1 :, i].min() for i in range(R.shape[1])])


def forward_transfer(matrix: Matrix) -> NDArray[np.float64]:
    """(T,) R[i−1, i] − R[0, i]: what the steps before domain i did to it, against the dense model."""
    R = check_matrix(matrix)
    return np.array([R[i, i] - R[0, i] for i in range(R.shape[1])])


def mean_forward_transfer(matrix: Matrix) -> float | None:
    """Its mean over the domains from the second on; None for a single one, which nothing came before."""
    found = forward_transfer(matrix)[1:]
    return float(found.mean()) if len(found) else None


def stasis(stay_pruned: float, pruned: float) -> float | None:
    """|pruned_{t−1} ∩ pruned_t| / |pruned_t|. None when nothing is pruned at t."""
    return stay_pruned / pruned if pruned else None


def mask_change(revived: float, newly_pruned: float, weights: float) -> float:
    """Share of all weights whose fate changed between two steps."""
    if weights < 1:
        raise InvalidValueError(f"mask change needs at least one weight, got {weights}")
    return (revived + newly_pruned) / weights


def jaccard(both: float, either: float) -> float | None:
    """|A ∩ B| / |A ∪ B| of two sets of pruned weights. None when both are empty."""
    return both / either if either else None


def expected_jaccard(sparsity: float) -> float:
    """Jaccard of two independent masks of one sparsity s: s² / (2s − s²)."""
    return sparsity / (2 - sparsity) if sparsity else 0.0
