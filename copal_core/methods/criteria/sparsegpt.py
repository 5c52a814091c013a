"""Optimal brain surgeon, column by column, with weight updates (SparseGPT, arXiv:2301.00774).

Removing weight k of a row adds w² / [H⁻¹]_kk to the squared output error, after the remaining weights of the
row are updated to compensate. Columns are processed from left to right; U, upper triangular with
H⁻¹ = Uᵀ U, contains all the inverses needed. The mask of a block of columns is chosen when its first column
is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from copal_core.errors import InvalidValueError, NumericalError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion, Pruned, Removal
from copal_core.methods.masks import removed_count, select, select_rows
from copal_core.methods.surgeon import surgeon
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.system.torch_settings import one_thread

if TYPE_CHECKING:
    from copal_core.config import Structure

_INNER = 32  # columns updated one by one before the rest of their block is updated in one product


@CRITERIA.register("sparsegpt")
@dataclass(frozen=True)
class SparseGPT(Criterion):
    """Optimal brain surgeon with blockwise masks.

    Attributes:
        damping: share of H's mean diagonal that is added to its diagonal.
        block: number of columns whose mask is chosen together.
    """

    cost: ClassVar[float] = 5.0
    colour: ClassVar[str] = "#009E73"
    gathers: ClassVar[tuple[str, ...]] = ("InputGram",)
    needs_full_rank: ClassVar[bool] = True
    workspace: ClassVar[tuple[int, int]] = (16, 0)
    updates_weights: ClassVar[bool] = True
    by_row: ClassVar[bool] = False

    damping: float = 0.01
    block: float = 128.0

    def __post_init__(self) -> None:
        if not 0 <= self.damping < 1:
            raise InvalidValueError(f"damping = {self.damping} is not a share; use 0 <= damping < 1")
        if self.block < 1 or self.block != int(self.block):
            raise InvalidValueError(f"block = {self.block} is not a number of columns; use 128")

    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        """Return w² / U_kk² of the original weights, before any update."""
        factor, dead, _ = inverse_factor(statistics.mean("input_gram"), self.damping)
        return (weight.float().masked_fill(dead, 0) / factor.diagonal()).square()

    def prune(
        self, weight: Tensor, statistics: GroupStatistics, structure: Structure, sections: Sequence[int]
    ) -> Pruned:
        factor, dead, warnings = inverse_factor(statistics.mean("input_gram"), self.damping)
        # transposed, so that one column of the layer is one contiguous row here: (in, out)
        w = weight.float().masked_fill(dead, 0).T.contiguous()
        kept = torch.ones_like(w, dtype=torch.bool)
        scores = torch.empty_like(w)
        thresholds = []
        width = self._width(structure)
        for start in range(0, w.shape[0], width):
            stop = min(start + width, w.shape[0])
            columns = slice(start, stop)
            chosen = _Chooser(structure, sections, start, w.shape[0])
            with one_thread():
                errors = _sweep(w[columns], factor[columns, columns], kept[columns], scores[columns], chosen)
            w[stop:].addmm_(factor[columns, stop:].T, errors, alpha=-1)
            thresholds += [] if chosen.thresholds is None else [chosen.thresholds]
        highest = torch.stack(thresholds).amax(dim=0) if thresholds else None
        w.mul_(kept)
        return Pruned(w.T.contiguous(), kept.T.contiguous(), scores.T.contiguous(), highest, warnings)

    def removal(self, weight: Tensor, statistics: GroupStatistics) -> Removal:
        prepared = surgeon(statistics.mean("input_gram"), self.damping)
        return lambda counts, group=0, rows=slice(None): prepared.changes(weight[rows], counts, group)

    def _width(self, structure: Structure) -> int:
        """Return the number of columns in a block, a multiple of the N:M group size."""
        block = int(self.block)
        size = structure.group_size if structure.kind == "n:m" else 1
        return max(size, block - block % size)


class _Chooser:
    """Chooses the mask of a block of columns; over the whole layer each row has exactly its sparsity."""

    def __init__(self, structure: Structure, sections: Sequence[int], start: int, columns: int) -> None:
        self.structure = structure
        self.thresholds: Tensor | None = None
        self._sections = list(sections)
        self._start = start
        structure.check_divides(columns)

    def whole_block(self, scores: Tensor) -> Tensor:
        """Return the kept weights of an unstructured block, bool; scores and result (columns, out)."""
        width, sparsity = scores.shape[0], self.structure.sparsity
        # differences of the running count, so that the blocks add up to exactly the layer's sparsity
        before, after = removed_count(self._start, sparsity), removed_count(self._start + width, sparsity)
        if self.structure.group == "row":
            selection = select_rows(scores.T.contiguous(), after - before)
            self.thresholds = selection.thresholds
            return selection.kept.T
        parts = []
        for part in scores.split(self._sections, dim=1):
            rows = part.shape[1]
            count = removed_count(self._start * rows + part.numel(), sparsity) - removed_count(
                self._start * rows, sparsity
            )
            parts.append(select_rows(part.T.reshape(1, -1), count).kept.reshape(rows, width).T)
        return torch.cat(parts, dim=1)

    def n_of_m(self, scores: Tensor) -> Tensor:
        """Return the kept weights of one N:M group, bool; scores and result (group size, out)."""
        return select(scores.T.contiguous(), self.structure).kept.T


def _sweep(w: Tensor, factor: Tensor, kept: Tensor, scores: Tensor, choose: _Chooser) -> Tensor:
    """Remove a block's weights column by column in place, and update the columns to the right of each.

    Args:
        w: (columns, out), the block's weights, transposed.
        factor: (columns, columns), the block's part of U.
        kept: (columns, out) bool, filled with the mask.
        scores: (columns, out), filled with w² / U_ii².
        choose: chooses the mask.

    Returns:
        (columns, out), the errors e_i = w_i / U_ii for which the columns after the block must still compensate.
    """
    columns = w.shape[0]
    scale = factor.diagonal()[:, None]  # (columns, 1)
    size = choose.structure.group_size if choose.structure.kind == "n:m" else 0
    # unstructured: one mask for the whole block, before any of its columns is updated
    if not size:
        scores.copy_((w / scale).square())
        kept.copy_(choose.whole_block(scores))
    errors = torch.empty_like(w)
    removed = ~kept / scale if not size else torch.empty_like(w)
    inner = max(size, _INNER - _INNER % size) if size else _INNER
    for start in range(0, columns, inner):
        stop = min(start + inner, columns)
        for i in range(start, stop):
            # N:M: a group's mask is chosen when its first column is reached
            if size and i % size == 0:
                group = slice(i, i + size)
                scores[group] = (w[group] / scale[group]).square()
                kept[group] = choose.n_of_m(scores[group])
                removed[group] = ~kept[group] / scale[group]
            # e_i = w_i / U_ii where weight i is removed, and w_j -= U_ij e_i for the columns j > i
            torch.mul(w[i], removed[i], out=errors[i])
            w[i + 1 : stop].addr_(factor[i, i + 1 : stop], errors[i], alpha=-1)
        # the same update for the rest of the block, as one product for all columns since `start`
        w[stop:].addmm_(factor[start:stop, stop:].T, errors[start:stop], alpha=-1)
    return errors


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Compute the upper triangular U with (H + damping · mean diagonal · I)⁻¹ = Uᵀ U.

    Damping is raised tenfold while H is not positive definite.

    Args:
        gram: (in, in) float32, H.
        damping: share of the mean diagonal.

    Returns:
        U (in, in); the dead inputs, (in,) bool, which were never active so that their weights have no effect; and
        warnings, kind -> message.

    Raises:
        NumericalError: H is not finite, or stays singular with a damping of 1.
    """
    H = gram.clone()
    diagonal = H.diagonal()
    if not bool(torch.isfinite(diagonal).all()):
        raise NumericalError("the Gram matrix is not finite; the calibration overflowed; use float32")
    dead = diagonal == 0
    diagonal[dead] = 1
    warnings = {}
    if bool(dead.any()):
        warnings["dead-inputs"] = (
            f"{int(dead.sum())} inputs were never active in calibration; their weights are removed first"
        )
    scale = diagonal.mean()
    used = damping
    diagonal += used * scale
    while True:
        # Cholesky with rows and columns reversed gives H = R Rᵀ with R upper triangular, hence U = R⁻¹
        lower, failed = torch.linalg.cholesky_ex(H.flip(0, 1))
        if not int(failed):
            break
        raised = max(used * 10, 1e-4)
        if raised > 1:
            raise NumericalError("the Gram matrix stays singular with damping 1; calibrate on more windows")
        diagonal += (raised - used) * scale
        used = raised
        warnings["damping-raised"] = (
            f"damping raised from {damping:g} to {used:g}: too few calibration tokens"
        )
    identity = torch.eye(H.shape[0], device=H.device)
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(0, 1).contiguous(), dead, warnings
