"""A run's method by its name: a criterion (masks), a decomposition (factors) or a neuron selector."""

from __future__ import annotations

from typing import Any

from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion
from copal_core.methods.decomposition import Decomposition
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neuron_selector import NeuronSelector
from copal_core.methods.neurons import NEURONS
from copal_core.system.registry import Options, Registry

Compressor = Criterion | Decomposition | NeuronSelector


def build_compressor(name: str, options: Options) -> Compressor:
    """Return the method `name` with its options. Raises InvalidValueError listing the known ones."""
    registries: tuple[Registry[Any], ...] = (CRITERIA, LOWRANK, NEURONS)
    for registry in registries:
        if name in registry.names():
            made: Compressor = registry.build(name, options)
            return made
    known = ", ".join([*CRITERIA.names(), *LOWRANK.names(), *NEURONS.names()])
    raise InvalidValueError(f"criterion or decomposition '{name}' is not known; known: {known}")
