"""SparseGPT over many sparsities at once, by the Cholesky factor itself rather than by an inverse.

With H = R Rᵀ, R upper triangular, and e = w − ŵ the change of a row so far, the error of a row is ‖e R‖² and
its part at column k is (e R)_k: the columns up to k decide it. A column that is kept takes the value that makes
its part vanish, w_k + Σ_{j<k} e_j R_jk / R_kk, which is the update that the inverse gives (arXiv:2301.00774).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from copal_core.errors import NumericalError
from copal_core.methods.masks import removed_count
from copal_core.system.torch_settings import one_thread

_BLOCK = 128  # columns whose mask is chosen together, as SparseGPT does


@dataclass(frozen=True)
class Surgeon:
    """A layer's inputs as SparseGPT needs them. upper: R (in, in) with R Rᵀ = H damped; dead: inputs that are zero."""

    upper: Tensor
    dead: Tensor

    def changes(self, weight: Tensor, counts: Sequence[int], group: int = 0) -> Tensor:
        """Return W − Ŵ (sparsities, rows, in) for every number of removed weights a row.

        weight: (rows, in) float32. group: columns that share their count of removed weights evenly, a divisor of
        128, which 0 stands for; a group of M columns gives N:M.
        """
        group = group or _BLOCK
        rows, columns = weight.shape
        stacked = weight.masked_fill(self.dead, 0).repeat(len(counts), 1)
        original = stacked.T.contiguous()  # (in, rows of all sparsities)
        changes = torch.zeros_like(original)
        removed = [_shares(columns, count) for count in counts]
        for first in range(0, columns, _BLOCK):
            last = min(first + _BLOCK, columns)
            carried = (
                self.upper[:first, first:last].T @ changes[:first]
            )  # (block, rows): due to earlier columns
            for start in range(first, last, group):
                stop = min(start + group, last)
                upper, rest = self.upper[start:stop, start:last], carried[start - first :]
                counted = [share[stop] - share[start] for share in removed]
                kept = _choose(
                    original[start:stop], rest[: stop - start], upper[:, : stop - start], counted, rows
                )
                with one_thread():
                    _sweep(original[start:stop], changes[start:stop], rest, upper, kept)
        changes += (
            weight.masked_fill(~self.dead, 0).repeat(len(counts), 1).T
        )  # dead inputs go, and cost nothing
        return changes.T.reshape(len(counts), rows, columns)


def surgeon(gram: Tensor, damping: float = 0.01) -> Surgeon:
    """Factorise a Gram matrix. gram: (in, in), a token's mean; damping: a share of its mean diagonal.

    Raises NumericalError for a Gram matrix that damping does not make definite.
    """
    H = gram.flip(0, 1)
    diagonal = H.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(H)
    del H
    if int(failed):
        raise NumericalError(
            f"the Gram matrix is singular with damping {damping:g}; calibrate on more windows"
        )
    return Surgeon(lower.flip(0, 1), gram.diagonal() == 0)


def _shares(columns: int, count: int) -> list[int]:
    """Weights removed among the first k columns, for every k: blocks add up to exactly `count`."""
    return [removed_count(k, count / columns) if k < columns else count for k in range(columns + 1)]


def _choose(original: Tensor, carried: Tensor, upper: Tensor, counts: Sequence[int], rows: int) -> Tensor:
    """The mask of a group of columns (group, rows of all sparsities), from the values it has on arrival."""
    scale = upper.diagonal()[:, None]
    # with no further removal each column's part vanishes: (arrived − w) R = carried within the group
    arrived = original + torch.linalg.solve_triangular(upper.T, carried, upper=False)
    scores = (arrived * scale).square()  # (group, rows)
    order = scores.T.argsort(dim=1, stable=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order)).T
    counted = torch.tensor(counts).repeat_interleave(rows)
    return place >= counted


def _sweep(original: Tensor, changes: Tensor, carried: Tensor, upper: Tensor, kept: Tensor) -> None:
    """Fill `changes` (group, rows) column by column, and carry their parts on to what is left of the block.

    carried: (group and all after it in the block, rows), its first rows used up; upper: (group, as many).
    """
    for i in range(original.shape[0]):
        # kept: part zero, e = −carried / R_ii; removed: e = w
        torch.where(kept[i], -carried[i] / upper[i, i], original[i], out=changes[i])
        if i + 1 < carried.shape[0]:
            carried[i + 1 :].addr_(upper[i, i + 1 :], changes[i])
