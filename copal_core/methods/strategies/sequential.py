"""Prune the already pruned model again: zeros score zero, so the mask does not change (weight stasis)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy

if TYPE_CHECKING:
    from copal_core.statistics.accumulators import BlockStatistics


@STRATEGIES.register("sequential")
class Sequential(Strategy):
    """Statistics of the newest domain alone, weights of the previous step."""

    dash = "dot"
    starts_from_pruned = True

    def combine(self, memory: BlockStatistics | None, found: Sequence[BlockStatistics]) -> BlockStatistics:
        return found[-1]
