"""What a run's method is by its name: a criterion (masks) or a decomposition (factors)."""

from __future__ import annotations

from collections.abc import Mapping

from copal_core.criteria import CRITERIA
from copal_core.criteria._base import Criterion, build_criterion
from copal_core.errors import InvalidValueError
from copal_core.lowrank import LOWRANK
from copal_core.lowrank._base import Decomposition, build_decomposition


def build_compressor(name: str, options: Mapping[str, str | float | bool]) -> Criterion | Decomposition:
    """The criterion or decomposition `name` with its options. Raises InvalidValueError listing the known ones."""
    if name in LOWRANK.names():
        return build_decomposition(name, options)
    if name not in CRITERIA.names():
        known = ", ".join([*CRITERIA.names(), *LOWRANK.names()])
        raise InvalidValueError(f"criterion or decomposition '{name}' is not known; known: {known}")
    return build_criterion(name, options)
