"""The weights of a block as a method left them at a step, from the dense checkpoint and the run store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from copal_core.compression.artifact import Artifact, dense_weights
from copal_core.compression.factors import FactorArtifact
from copal_core.compression.masks import MaskArtifact
from copal_core.compression.neurons import NeuronArtifact
from copal_core.compression.pruning import Weights
from copal_core.config import Method
from copal_core.methods.facts import facts_of
from copal_core.store.run_store import RunStore

__all__ = ["artifact_of", "dense_weights", "pruned_weights", "variant"]

_KINDS: dict[str, type[Artifact[Any]]] = {
    "masks": MaskArtifact,
    "factors": FactorArtifact,
    "neurons": NeuronArtifact,
}


def artifact_of(method: str) -> type[Artifact[Any]]:
    """Return the class of what `method` (with strategy and options) makes of a block."""
    return _KINDS[facts_of(Method.parse(method).name).artifact]


def pruned_weights(store: RunStore, method: str, step: int, index: int, block: nn.Module) -> Weights:
    """Return projection -> (out, in) of block `index` after `step`."""
    return variant(store, method, step)(index, block)


def variant(store: RunStore, method: str, step: int) -> Callable[[int, nn.Module], Weights]:
    """Return a function that gives `evaluate` the weights of every block after `step` of `method`."""
    return artifact_of(method).variant(store, method, step)
