"""Truncated singular value decomposition of the weight; needs no calibration text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from copal_core.methods.decomposition import Decomposition, Factors, check_rank
from copal_core.methods.linalg import truncate
from copal_core.methods.lowrank import LOWRANK
from copal_core.statistics.accumulators import GroupStatistics


@LOWRANK.register("svd")
@dataclass(frozen=True)
class Svd(Decomposition):
    """The nearest matrix of rank r in every unitarily invariant norm, independent of any text.

    Attributes:
        keep: share of the bytes kept; 0 takes the share of the run's structure.
    """

    cost: ClassVar[float] = 4.0
    colour: ClassVar[str] = "#8C6BB1"

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        check_rank(weight, rank)
        left, right, discarded = truncate(weight.double(), None, rank)
        return Factors(left, right, 0.0, discarded)
