"""Selectors of the hidden neurons to remove from a feed-forward layer, one per file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copal_core.system.registry import Registry

if TYPE_CHECKING:
    from copal_core.methods.neuron_selector import NeuronSelector

NEURONS: Registry[NeuronSelector] = Registry("neuron selector", __name__)
