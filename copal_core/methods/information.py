"""Mutual information between neurons, in nats: all pairs by the Gaussian copula, single pairs by neighbours.

I(k; l) = −½ ln(1 − ρ²), with ρ the correlation of the two neurons' normal scores, is exact when the pair's copula is
Gaussian, whatever the two neurons' own distributions, and does not change under monotone maps of either. Dependence
that is not monotone (one neuron following the other's size but not its sign) is not seen by ρ; the estimate from
nearest neighbours sees it, and costs seconds a hundred pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LARGEST_SQUARE = (
    1 - 1e-7
)  # of a correlation in float32: identical neurons share 8.06 nats here, not infinity
LARGEST = -0.5 * math.log(1 - _LARGEST_SQUARE)
NEIGHBOURS = 3


def deviations(gram: Tensor) -> Tensor:
    """(d,) square roots of the diagonal; infinite for constant neurons, whose correlations then are zero."""
    variance = gram.diagonal()
    return torch.where(variance > 0, variance.sqrt(), torch.inf)


def correlations(gram: Tensor, rows: Tensor | slice, deviation: Tensor) -> Tensor:
    """|ρ| of some neurons with all. gram: (d, d) of normal scores. Returns (len(rows), d) float32 in 0..1.

    Rows at a time, so that no second matrix of all pairs is needed.
    """
    found = gram[rows].abs()
    found /= deviation
    found /= deviation[rows][:, None]
    return found.clamp_(max=1.0)


def information(correlation: Tensor) -> Tensor:
    """Nats of a Gaussian copula with this correlation, elementwise; at most 8.06."""
    square = correlation.double().square().clamp(max=_LARGEST_SQUARE)
    return -0.5 * torch.log1p(-square)


def correlation_of(nats: float) -> float:
    """The correlation at which a Gaussian copula shares `nats`: the inverse of `information`."""
    return math.sqrt(-math.expm1(-2 * nats))


def neighbour_information(
    one: NDArray[np.float64], other: NDArray[np.float64], neighbours: int = NEIGHBOURS
) -> float:
    """The estimate of Kraskov, Stögbauer and Grassberger (k nearest neighbours), by scikit-learn.

    one, other: (n,) samples of two neurons. Both go in as normal scores, which changes no mutual information and
    keeps a neuron's rare large values from hiding the rest. Not below 0.
    """
    from sklearn.feature_selection import mutual_info_regression

    from copal_core.statistics.neurons import normal_scores

    both = normal_scores(torch.from_numpy(np.stack([one, other], axis=1))).double().numpy()
    found = mutual_info_regression(both[:, :1], both[:, 1], n_neighbors=neighbours, random_state=0)
    return float(found[0])
