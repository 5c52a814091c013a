"""Methods of a run from their names: a criterion, a decomposition or a neuron selector, with its strategy."""

from __future__ import annotations

from collections.abc import Mapping

from copal_core.config import RunConfig
from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion, build_criterion
from copal_core.methods.decomposition import Decomposition, build_decomposition
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neuron_selector import NeuronSelector, build_selector
from copal_core.methods.neurons import NEURONS
from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy

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


def build_compressor(name: str, options: Mapping[str, str | float | bool]) -> Compressor:
    """Build the method `name` with its options. Raises InvalidValueError listing the known ones."""
    if name in NEURONS.names():
        return build_selector(name, options)
    if name in LOWRANK.names():
        return build_decomposition(name, options)
    if name not in CRITERIA.names():
        known = ", ".join([*CRITERIA.names(), *LOWRANK.names(), *NEURONS.names()])
        raise InvalidValueError(f"criterion or decomposition '{name}' is not known; known: {known}")
    return build_criterion(name, options)
