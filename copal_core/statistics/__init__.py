"""What a calibration pass measures: additive sums over tokens, gathered by hooks, one block at a time."""

from copal_core.statistics.accumulators import (
    AbsoluteCoupling,
    BlockStatistics,
    GroupStatistics,
    InputGram,
    InputSquareSum,
    Statistic,
)

__all__ = [
    "AbsoluteCoupling",
    "BlockStatistics",
    "GroupStatistics",
    "InputGram",
    "InputSquareSum",
    "Statistic",
]
