"""Calibrate on all domains seen so far together: a reference that needs the text of past domains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy

if TYPE_CHECKING:
    from copal_core.statistics.accumulators import BlockStatistics


@STRATEGIES.register("joint")
class Joint(Strategy):
    """Statistics of every domain so far, dense weights."""

    dash = "dashdot"

    def domains(self, step: int) -> list[int]:
        return list(range(1, step + 1))

    def combine(self, memory: BlockStatistics | None, found: Sequence[BlockStatistics]) -> BlockStatistics:
        return reduce(lambda total, new: total.plus(new), found)
