"""Mutual information between neurons, in nats: all pairs by the Gaussian copula, single pairs by nearest neighbours.

I(k; l) = −½ ln(1 − ρ²), with ρ the correlation of the two neurons' normal scores, is exact if the pair's copula is
Gaussian, whatever the neurons' marginal distributions, and is invariant under monotone maps of either. A dependence
that is not monotone (one neuron follows the magnitude of the other but not its sign) is invisible to ρ; the estimate
from nearest neighbours detects it, and takes seconds for a hundred pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# of a correlation in float32, so that identical neurons share 8.06 nats here and not infinity
_LARGEST_SQUARE = 1 - 1e-7
LARGEST = -0.5 * math.log(1 - _LARGEST_SQUARE)
NEIGHBOURS = 3


def deviations(gram: Tensor) -> Tensor:
    """Return the square roots of the diagonal, (d,); infinite for constant neurons, so that their ρ is 0."""
    variance = gram.diagonal()
    return torch.where(variance > 0, variance.sqrt(), torch.inf)


def correlations(gram: Tensor, rows: Tensor | slice, deviation: Tensor) -> Tensor:
    """Compute |ρ| of some neurons with all neurons; by rows, so that no second (d, d) matrix is needed.

    Args:
        gram: (d, d), Gram matrix of the normal scores.
        rows: neurons.
        deviation: (d,), as `deviations` returns it.

    Returns:
        (len(rows), d) float32, 0 to 1.
    """
    correlation = gram[rows].abs()
    correlation /= deviation
    correlation /= deviation[rows][:, None]
    return correlation.clamp_(max=1.0)


def information(correlation: Tensor) -> Tensor:
    """Return the mutual information of a Gaussian copula with this correlation, in nats, elementwise; at most 8.06."""
    square = correlation.double().square().clamp(max=_LARGEST_SQUARE)
    return -0.5 * torch.log1p(-square)


def correlation_of(nats: float) -> float:
    """Return the correlation at which a Gaussian copula shares `nats`: the inverse of `information`."""
    return math.sqrt(-math.expm1(-2 * nats))


def neighbour_information(
    one: NDArray[np.float64], other: NDArray[np.float64], neighbours: int = NEIGHBOURS
) -> float:
    """Estimate mutual information from k nearest neighbours (Kraskov, Stögbauer and Grassberger), by scikit-learn.

    Both samples are converted to normal scores, which does not change their mutual information and prevents a
    neuron's rare large values from hiding the rest.

    Args:
        one: (n,) samples of a neuron.
        other: (n,) samples of another neuron, on the same tokens.
        neighbours: k.

    Returns:
        Nats, >= 0.
    """
    from sklearn.feature_selection import mutual_info_regression

    from copal_core.statistics.neurons import normal_scores

    both = normal_scores(torch.from_numpy(np.stack([one, other], axis=1))).double().numpy()
    estimate = mutual_info_regression(both[:, :1], both[:, 1], n_neighbors=neighbours, random_state=0)
    return float(estimate[0])
