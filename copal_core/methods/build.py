"""What a run's method is by its name: a criterion (masks), a decomposition (factors) or a neuron selector."""

from __future__ import annotations

from collections.abc import Mapping

from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion, build_criterion
from copal_core.methods.decomposition import Decomposition, build_decomposition
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neuron_selector import NeuronSelector, build_selector
from copal_core.methods.neurons import NEURONS


def build_compressor(
    name: str, options: Mapping[str, str | float | bool]
) -> Criterion | Decomposition | NeuronSelector:
    """The method `name` with its options. Raises InvalidValueError listing the known ones."""
    if name in NEURONS.names():
        return build_selector(name, options)
    if name in LOWRANK.names():
        return build_decomposition(name, options)
    if name not in CRITERIA.names():
        known = ", ".join([*CRITERIA.names(), *LOWRANK.names(), *NEURONS.names()])
        raise InvalidValueError(f"criterion or decomposition '{name}' is not known; known: {known}")
    return build_criterion(name, options)
