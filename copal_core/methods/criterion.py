"""What every criterion offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.masks import Selection, select
from copal_core.statistics.accumulators import GroupStatistics, Statistic

if TYPE_CHECKING:
    from copal_core.config import Structure

_SCORED_AT_ONCE = 4 * 2**20  # weights; a score takes several times their bytes while it is computed


@dataclass(frozen=True)
class Pruned:
    """A pruned layer, or several that read the same input stacked along `out`.

    weight: (out, in) float32, zero where removed. kept: (out, in) bool. scores: (out, in) float32.
    thresholds: the largest removed score of each comparison group, None for N:M.
    warnings: kind -> message, what a reader should know (damping raised, dead inputs).
    """

    weight: Tensor
    kept: Tensor
    scores: Tensor
    thresholds: Tensor | None
    warnings: Mapping[str, str]


class Criterion(ABC):
    """An importance score; larger means keep. Options are the fields of the dataclass."""

    name: ClassVar[str]
    updates_weights: ClassVar[bool] = False
    by_row: ClassVar[bool] = True  # a row's scores depend on its weights, its statistics and the input alone

    @abstractmethod
    def statistics(self) -> tuple[Statistic, ...]:
        """What calibration must gather."""

    @abstractmethod
    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        """Importance of every weight.

        weight: (out, in), any float dtype; where `by_row`, some rows of a layer and no more, else the projections
        that read one input stacked along `out`. Returns the same shape, float32, >= 0.
        """

    def prune(
        self, weight: Tensor, statistics: GroupStatistics, structure: Structure, sections: Sequence[int]
    ) -> Pruned:
        """Remove the lowest scores. weight: (out, in); sections: row counts of the stacked layers."""
        scores, selection = self.choose(weight, statistics, structure, sections)
        return Pruned(weight.float() * selection.kept, selection.kept, scores, selection.thresholds, {})

    def choose(
        self, weight: Tensor, statistics: GroupStatistics, structure: Structure, sections: Sequence[int]
    ) -> tuple[Tensor, Selection]:
        """Scores (out, in) float32 and what stays, without the weights that come of it."""
        scores = self.scores(weight, statistics)
        return scores, select(scores, structure, sections)

    def scores(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        """`score`, a bounded number of rows at a time where rows do not depend on each other."""
        rows = max(1, _SCORED_AT_ONCE // weight.shape[1])
        if not self.by_row or rows >= weight.shape[0]:
            return self.score(weight, statistics)
        scores = torch.empty(weight.shape, device=weight.device)
        for start in range(0, weight.shape[0], rows):
            stop = min(start + rows, weight.shape[0])
            scores[start:stop] = self.score(weight[start:stop], statistics.rows(slice(start, stop)))
        return scores


def build_criterion(name: str, options: Mapping[str, str | float | bool]) -> Criterion:
    """The criterion `name` with its options. Raises InvalidValueError for an unknown name or option."""
    cls = CRITERIA.get(name)
    check_options("criterion", name, cls, options)
    return cls(**options)


def check_options(kind: str, name: str, cls: type, options: Mapping[str, str | float | bool]) -> None:
    """Raises InvalidValueError for an option that is no field of the dataclass `cls`, or of another type."""
    known = {field.name: type(field.default) for field in fields(cls)}
    for option, value in options.items():
        if option not in known:
            offered = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InvalidValueError(f"{kind} '{name}' has no option '{option}'; {offered}")
        if type(value) is not known[option] or (isinstance(value, float) and not math.isfinite(value)):
            wanted = {float: "a number", str: "a word", bool: "true or false"}.get(
                known[option], "another value"
            )
            raise InvalidValueError(f"option '{option}' of {kind} '{name}' is {wanted}, got '{value}'")
