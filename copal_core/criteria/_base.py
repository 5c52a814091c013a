"""What every criterion offers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import Tensor

from copal_core.config import Structure
from copal_core.criteria import CRITERIA
from copal_core.errors import InvalidValueError
from copal_core.masks import select
from copal_core.statistics.accumulators import GroupStatistics, Statistic


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

    @abstractmethod
    def statistics(self) -> tuple[Statistic, ...]:
        """What calibration must gather."""

    @abstractmethod
    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        """Importance of every weight.

        weight: (out, in), any float dtype. Returns (out, in) float32, >= 0.
        """

    def prune(
        self, weight: Tensor, statistics: GroupStatistics, structure: Structure, sections: Sequence[int]
    ) -> Pruned:
        """Remove the lowest scores. weight: (out, in); sections: row counts of the stacked layers."""
        scores = self.score(weight, statistics)
        selection = select(scores, structure, sections)
        return Pruned(weight.float() * selection.kept, selection.kept, scores, selection.thresholds, {})


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
