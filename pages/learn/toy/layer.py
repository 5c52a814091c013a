"""A small linear layer y = W x: statistics, scores, mask and output error, as in `copal_core.methods.criteria`.

W is (neurons, inputs), a token is one row of X (tokens, inputs), everything float64. A test compares the formulas with
those of the criteria.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from copal_core.errors import InvalidValueError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
CRITERIA = ("magnitude", "wanda", "copal")


@dataclass(frozen=True)
class Sums:
    """Statistics of tokens: sums, so that those of two texts can be added.

    Attributes:
        tokens: number of tokens.
        square_sum: Σ x², (inputs,).
        coupling: |Y|ᵀ|X|, (neurons, inputs).
        gram: XᵀX, (inputs, inputs).
    """

    tokens: int
    square_sum: Array
    coupling: Array
    gram: Array

    def plus(self, other: Sums) -> Sums:
        """Return the sums over both texts."""
        return Sums(
            self.tokens + other.tokens,
            self.square_sum + other.square_sum,
            self.coupling + other.coupling,
            self.gram + other.gram,
        )


def gather(inputs: Array, weight: Array) -> Sums:
    """Return the sums over the tokens of `inputs` (tokens, inputs) under `weight` (neurons, inputs)."""
    x, w = np.asarray(inputs, dtype=float), np.asarray(weight, dtype=float)
    if x.ndim != 2 or not len(x) or x.shape[1] != w.shape[1]:
        raise InvalidValueError(f"tokens of shape {x.shape} do not fit a layer of {w.shape}")
    outputs = x @ w.T  # (tokens, neurons)
    return Sums(len(x), (x**2).sum(axis=0), np.abs(outputs).T @ np.abs(x), x.T @ x)


def score(criterion: str, weight: Array, sums: Sums) -> Array:
    """Return the importance of every weight, (neurons, inputs); larger means keep."""
    size = np.abs(weight)
    if criterion == "magnitude":
        return size
    if criterion == "wanda":
        return size * np.sqrt(sums.square_sum / sums.tokens)
    if criterion == "copal":
        return size * sums.coupling / sums.tokens
    raise InvalidValueError(f"criterion '{criterion}' is not known here; known: {', '.join(CRITERIA)}")


def keep_highest(scores: Array, keep: int = 1) -> Mask:
    """Keep exactly `keep` weights of each row; among equal scores those with the higher index."""
    if not 0 <= keep <= scores.shape[1]:
        raise InvalidValueError(f"keep = {keep} of {scores.shape[1]} weights; use 0 to {scores.shape[1]}")
    order = np.argsort(scores, axis=1, kind="stable")  # ascending, equal scores by index
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, order[:, scores.shape[1] - keep :], True, axis=1)
    return kept


def lost(weight: Array, approximation: Array, gram: Array) -> float:
    """Return the share of the layer's squared output that is lost: tr((W − Ŵ) H (W − Ŵ)ᵀ) / tr(W H Wᵀ)."""
    difference = weight - approximation
    energy = float(np.sum((weight @ gram) * weight))
    return max(0.0, float(np.sum((difference @ gram) * difference))) / energy if energy > 0 else 0.0


def best_mask(weight: Array, gram: Array) -> Mask:
    """Return the mask that loses least output among all that keep one weight in each neuron."""
    return min(_masks(weight.shape), key=lambda kept: lost(weight, weight * kept, gram))


def _masks(shape: tuple[int, ...]) -> Iterator[Mask]:
    neurons, inputs = shape
    for places in product(range(inputs), repeat=neurons):
        yield np.eye(inputs, dtype=bool)[list(places)]
