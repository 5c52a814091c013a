"""Strategies: the text a step may see, the weights it starts from, what it remembers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from copal_core.statistics.accumulators import BlockStatistics


class Strategy(ABC):
    """One continual strategy. Steps and domains are numbered from 1."""

    name: ClassVar[str]
    starts_from_pruned: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    dash: ClassVar[str] = "longdashdot"  # of its lines in every figure

    def domains(self, step: int) -> list[int]:
        """The domains whose text is calibrated on at `step`; the newest comes last."""
        return [step]

    @abstractmethod
    def combine(self, memory: BlockStatistics | None, found: Sequence[BlockStatistics]) -> BlockStatistics:
        """The statistics that score the weights.

        memory: what this strategy remembered of the block, None at the first step or when it does not
        remember. found: this step's statistics, one for each of `domains(step)`.
        """
