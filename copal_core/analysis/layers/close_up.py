"""One layer from close by at one budget: pooled pictures of what each method keeps and loses, and subspaces.

Low-rank methods keep W's part within a few output directions U. How much of a masked weight lies within them,
and at which angles its own leading directions meet them, says whether masks and low rank keep the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copal_core.analysis.layers.compared import RANKED, masks
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.criterion import Removal, build_criterion
from copal_core.methods.linalg import eigh, output_directions, svd, whiten
from copal_core.methods.masks import removed_count
from copal_core.statistics.accumulators import GroupStatistics

Array = NDArray[np.float32]
TILES = 64
_ROWS, _COLUMNS = 1536, 2048  # of a larger layer, so many are looked at
_ANGLES_UP_TO = 2048  # directions; more take too long for a page that answers at once


@dataclass(frozen=True)
class Picture:
    """Root mean square of the weights in each tile (<= 64, <= 64): what a method keeps, and what it loses."""

    kept: Array
    lost: Array


@dataclass(frozen=True)
class Subspace:
    """A masked weight against the output directions of a decomposition of `rank`.

    inside: share of the masked weight's squared norm within them; dense_inside: of the whole weight's; by_chance:
    within random directions. cosines: of the principal angles between them and the masked weight's own leading
    directions, descending; empty for a layer that is too large.
    """

    rank: int
    inside: float
    dense_inside: float
    by_chance: float
    cosines: NDArray[np.float64]


@dataclass
class CloseUp:
    """A layer and the text that the methods are given. weight: (out, in) float32."""

    weight: Tensor
    given: GroupStatistics
    _removals: dict[str, Removal] = field(default_factory=dict)
    _parts: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def dense(self) -> Array:
        """The picture of W itself."""
        return pooled(self._rows(self.weight))

    def picture(self, method: str, share: float) -> Picture:
        """Draw what `method` keeps at `share` of the bytes. Raises InvalidValueError for an unknown one."""
        if method in RANKED:
            left, right = self.directions(method)
            rank = stored_size.rank_at(self.weight.shape[0], self.weight.shape[1], share)
            kept = self._rows(left)[:, :rank] @ right[:rank]
        else:
            kept = self._masked(
                method, stored_size.sparsity_at(share), self._rows(torch.arange(len(self.weight)))
            )
        return Picture(pooled(kept), pooled(self._rows(self.weight) - kept))

    def subspace(self, mask: str, decomposition: str, share: float) -> Subspace:
        """The masked weight of `mask` against the directions of `decomposition`, both at `share` of the bytes."""
        rows, columns = self.weight.shape
        rank = max(1, stored_size.rank_at(rows, columns, share))
        chosen = _spread(columns, _COLUMNS)
        masked = self._masked(mask, stored_size.sparsity_at(share), torch.arange(rows))[:, chosen]
        directions = self.directions(decomposition)[0][:, :rank]  # (out, r), orthonormal
        own = _leading(masked, rank)
        cosines = np.empty(0)
        if own is not None and bool(masked.any()):
            cosines = torch.linalg.svdvals(directions.T.double() @ own).clamp(0, 1).numpy()
        inside = _inside(masked, directions), _inside(self.weight[:, chosen], directions)
        return Subspace(rank, *inside, rank / rows, cosines)

    def directions(self, method: str) -> tuple[Tensor, Tensor]:
        """U (out, k) orthonormal and Uᵀ W (k, in): the first r of both are the factors of rank r."""
        if method not in self._parts:
            weight = self.weight.double()
            if method == "svd":
                left = output_directions(weight, None)[0]
            elif method == "whitened-svd":
                left = output_directions(weight, whiten(self.given.mean("input_gram")).lower)[0]
            elif method == "basel":
                left, scales, right = svd(weight)
                gram = self.given.mean("input_gram").double()
                carried = scales.square() * torch.sum((right @ gram) * right, dim=1)
                left = left[:, carried.argsort(descending=True, stable=True)]
            else:
                raise InvalidValueError(f"decomposition '{method}' is not known; known: {', '.join(RANKED)}")
            self._parts[method] = left.float(), (left.T @ weight).float()
        return self._parts[method]

    def _masked(self, method: str, sparsity: float, rows: Tensor) -> Tensor:
        """Return the masked weight (rows, in), updated where the method does so."""
        if method not in self._removals:
            if method not in (known := masks()):
                raise InvalidValueError(
                    f"method '{method}' is not known; known: {', '.join((*known, *RANKED))}"
                )
            self._removals[method] = build_criterion(method, {}).removal(self.weight, self.given)
        count = removed_count(self.weight.shape[1], sparsity)
        return self.weight[rows] - self._removals[method]([count], rows=rows)[0]

    def _rows(self, matrix: Tensor) -> Tensor:
        return matrix[_spread(len(matrix), _ROWS)]


def pooled(matrix: Tensor) -> Array:
    """Root mean square of each tile; at most 64 × 64 of them."""
    squares = matrix.square().numpy()
    for axis in (0, 1):
        size = squares.shape[axis]
        edges = np.linspace(0, size, min(TILES, size) + 1).astype(int)
        widths = np.diff(edges).astype(np.float32)
        squares = np.add.reduceat(squares, edges[:-1], axis=axis) / (widths[:, None] if axis == 0 else widths)
    return np.sqrt(squares).astype(np.float32)


def _inside(matrix: Tensor, directions: Tensor) -> float:
    total = float(matrix.square().sum())
    return float((directions.T @ matrix).square().sum()) / total if total > 0 else 0.0


def _leading(matrix: Tensor, rank: int) -> Tensor | None:
    """(out, <= rank) float64: the leading left singular directions; None where they take too long."""
    rows, columns = matrix.shape
    if min(rows, columns) > _ANGLES_UP_TO:
        return None
    precise = matrix.double()
    if rows <= columns:
        return eigh(precise @ precise.T)[1][:, :rank]
    values, vectors = eigh(precise.T @ precise)  # tall: through the smaller side
    kept = min(rank, int((values > 1e-10 * values[0]).sum()))
    return (precise @ vectors[:, :kept]) / values[:kept].sqrt()


def _spread(size: int, most: int) -> Tensor:
    """At most `most` indices, evenly spread."""
    return torch.linspace(0, size - 1, min(size, most)).round().long()
