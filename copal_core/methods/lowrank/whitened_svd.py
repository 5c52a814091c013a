"""Truncated SVD of W L with H = L Lᵀ, optimal for the layer's output on its text (SVD-LLM, arXiv:2403.07378).

‖(W − Ŵ) Xᵀ‖² = ‖(W − Ŵ) L‖², so that truncating the SVD of W L and multiplying by L⁻¹ loses exactly the sum of the
squared singular values that were cut off. H is additive over text, so that one sum is the memory of all past domains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from copal_core.config import Structure
from copal_core.methods.decomposition import Choice, Decomposition, Factors, check_keep, check_rank
from copal_core.methods.linalg import Whitening, truncate, whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.statistics.accumulators import GroupStatistics, InputGram, Statistic


@LOWRANK.register("whitened-svd")
@dataclass(frozen=True)
class WhitenedSvd(Decomposition):
    """Low-rank factors with the least output error on the calibration text.

    Attributes:
        keep: share of the bytes kept; 0 takes the share of the run's structure.
    """

    keep: float = 0.0

    def __post_init__(self) -> None:
        check_keep(self.keep)

    def statistics(self) -> tuple[Statistic, ...]:
        return (InputGram(),)

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        return whitened(weight, whiten(statistics.mean("input_gram")), rank)

    def decompose_group(
        self, weights: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
    ) -> dict[str, Choice]:
        """One Cholesky factor serves all projections that read the same input."""
        shared = _Shared(self.keep, whiten(statistics.mean("input_gram")))
        return {
            name: Choice(shared.at_share(weight, statistics, self.share(structure)))
            for name, weight in weights.items()
        }


@dataclass(frozen=True)
class _Shared(Decomposition):
    """The same decomposition with the Cholesky factor already computed."""

    keep: float
    whitening: Whitening

    def statistics(self) -> tuple[Statistic, ...]:
        return ()

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
