"""Methods of a run from their names: a criterion, a decomposition or a neuron selector, with its strategy."""

from __future__ import annotations

from typing import Any

from copal_core.config import RunConfig
from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion
from copal_core.methods.decomposition import Decomposition
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neuron_selector import NeuronSelector
from copal_core.methods.neurons import NEURONS
from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy
from copal_core.system.registry import Options, Registry

Compressor = Criterion | Decomposition | NeuronSelector


def build_methods(config: RunConfig) -> dict[str, tuple[Compressor, Strategy]]:
    """Build what every method of a run computes with.

    Returns:
        method -> its compressor and its strategy, in the run's order.

    Raises:
        InvalidValueError: for an unknown name or option, and for a strategy that needs steps the run leaves out.
    """
    built = {
        str(method): (build_compressor(method.name, method.options), STRATEGIES.get(method.strategy)())
        for method in config.methods
    }
    for method, (_, strategy) in built.items():
        if config.steps == "last" and (strategy.remembers or strategy.starts_from_pruned):
            raise InvalidValueError(
                f"method '{method}' builds on the steps before, and this run computes its last step alone; use joint "
                "or restart, or compute all steps"
            )
    return built


def build_compressor(name: str, options: Options) -> Compressor:
    """Return the method `name` with its options. Raises InvalidValueError listing the known ones."""
    registries: tuple[Registry[Any], ...] = (CRITERIA, LOWRANK, NEURONS)
    for registry in registries:
        if name in registry.names():
            made: Compressor = registry.build(name, options)
            return made
    known = ", ".join([*CRITERIA.names(), *LOWRANK.names(), *NEURONS.names()])
    raise InvalidValueError(f"criterion or decomposition '{name}' is not known; known: {known}")
