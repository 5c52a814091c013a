"""Prune the dense model anew for the newest domain alone; earlier domains are forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy

if TYPE_CHECKING:
    from copal_core.statistics.accumulators import BlockStatistics


@STRATEGIES.register("restart")
class Restart(Strategy):
    """Statistics of the newest domain alone, dense weights."""

    dash = "dash"

    def combine(self, memory: BlockStatistics | None, found: Sequence[BlockStatistics]) -> BlockStatistics:
        return found[-1]
