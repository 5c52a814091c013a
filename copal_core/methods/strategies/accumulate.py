"""Add the newest domain's statistics to the memory, and prune the dense weights by the sum (COPAL)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy

if TYPE_CHECKING:
    from copal_core.statistics.accumulators import BlockStatistics


@STRATEGIES.register("accumulate")
class Accumulate(Strategy):
    """Statistics of all domains so far from memory, dense weights; no past text is stored."""

    dash = "solid"
    remembers = True

    def combine(self, memory: BlockStatistics | None, found: Sequence[BlockStatistics]) -> BlockStatistics:
        return found[-1] if memory is None else memory.plus(found[-1])
