"""Truncated SVD of W L with H = L Lᵀ, optimal for the layer's output on its text (SVD-LLM, arXiv:2403.07378).

‖(W − Ŵ) Xᵀ‖² = ‖(W − Ŵ) L‖², so that truncating the SVD of W L and multiplying by L⁻¹ loses exactly the sum of the
squared singular values that were cut off. H is additive over text, so that one sum is the memory of all past domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from copal_core.config import Structure
from copal_core.methods.decomposition import Choice, Decomposition, Factors, check_rank
from copal_core.methods.linalg import Whitening, truncate, whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.statistics.accumulators import GroupStatistics


@LOWRANK.register("whitened-svd")
@dataclass(frozen=True)
class WhitenedSvd(Decomposition):
    """Low-rank factors with the least output error on the calibration text.

    Attributes:
        keep: share of the bytes kept; 0 takes the share of the run's structure.
    """

    cost: ClassVar[float] = 9.0
    colour: ClassVar[str] = "#E69F00"
    gathers: ClassVar[tuple[str, ...]] = ("InputGram",)
    needs_full_rank: ClassVar[bool] = True

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        return whitened(weight, whiten(statistics.mean("input_gram")), rank)

    def decompose_group(
        self, weights: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
    ) -> dict[str, Choice]:
        """One Cholesky factor serves all projections that read the same input."""
        shared = _Shared(keep=self.keep, whitening=whiten(statistics.mean("input_gram")))
        return {
            name: Choice(shared.at_share(weight, statistics, self.share(structure)))
            for name, weight in weights.items()
        }


@dataclass(frozen=True, kw_only=True)
class _Shared(Decomposition):
    """The same decomposition with the Cholesky factor already computed."""

    whitening: Whitening

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        return whitened(weight, self.whitening, rank)


def whitened(weight: Tensor, whitening: Whitening, rank: int) -> Factors:
    """Compute the factors of `rank` with the least output error.

    Args:
        weight: (out, in).
        whitening: Cholesky factor of the layer's Gram matrix.
        rank: 1 to min(out, in).
    """
    check_rank(weight, rank)
    left, right, discarded = truncate(weight.double(), whitening.lower, rank)
    return Factors(left, right, whitening.damping, discarded, whitening.warnings)
