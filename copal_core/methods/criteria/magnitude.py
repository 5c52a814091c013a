"""Magnitude of the weight, |W|; needs no calibration text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion
from copal_core.statistics.accumulators import GroupStatistics, Statistic


@CRITERIA.register("magnitude")
@dataclass(frozen=True)
class Magnitude(Criterion):
    """|W_jk|."""

    def statistics(self) -> tuple[Statistic, ...]:
        return ()

    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        return weight.float().abs()
