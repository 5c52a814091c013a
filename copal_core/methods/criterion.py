"""Criteria: importance scores that decide which weights go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from copal_core.methods.criteria import CRITERIA
from copal_core.methods.facts import MaskFacts
from copal_core.methods.masks import Selection, select
from copal_core.system.registry import Options

if TYPE_CHECKING:
    from copal_core.config import Structure
    from copal_core.statistics.accumulators import GroupStatistics

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


class Removal(Protocol):
    """Removes weights of one layer at many sparsities at once, within rows."""

    def __call__(self, counts: Sequence[int], group: int = 0, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return the change W − Ŵ (counts, rows, in) when so many weights of each row go.

        Args:
            counts: weights that go from each row, one number a result.
            group: columns of an N:M group, in each of which an equal share goes; 0: anywhere in the row.
            rows: of the layer that are asked for; all by default.
        """


@dataclass(frozen=True)
class Ranking:
    """A `Removal` by scores alone. weight, scores: (out, in)."""

    weight: Tensor
    scores: Tensor

    @cached_property
    def _place(self) -> Tensor:
        """(out, in) int32: how many weights of the row go before this one; ties by index."""
        order = self.scores.argsort(dim=1, stable=True)
        ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
        return torch.empty_like(order).scatter_(1, order, ranks).int()

    def __call__(self, counts: Sequence[int], group: int = 0, rows: Tensor | slice = slice(None)) -> Tensor:
        from copal_core.config import Structure

        weight = self.weight[rows]  # (rows, in)
        if not group:
            place = self._place[rows]
            return torch.stack([weight * (place < count) for count in counts])
        keeps = [group - count * group // weight.shape[1] for count in counts]
        patterns = [Structure(kind="n:m", keep=keep, group_size=group) for keep in keeps]
        return torch.stack([weight * ~select(self.scores[rows], pattern).kept for pattern in patterns])


class Criterion(MaskFacts, ABC):
    """An importance score; larger means keep. Options are the fields of the dataclass, facts its class attributes."""

    @abstractmethod
    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        """Return the importance of every weight.

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

    def removal(self, weight: Tensor, statistics: GroupStatistics) -> Removal:
        """Return what removes any number of one layer's weights; to be overridden where weights are updated.

        weight: (out, in) float32. statistics: of these rows.
        """
        return Ranking(weight, self.score(weight, statistics))


def build_criterion(name: str, options: Options) -> Criterion:
    """Return the criterion `name` with its options. Raises InvalidValueError for an unknown name or option."""
    return CRITERIA.build(name, options)
