"""Ways to choose which hidden neurons of a feed-forward layer go, one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copal_core.system.registry import Registry

if TYPE_CHECKING:
    from copal_core.methods.neuron_selector import NeuronSelector

NEURONS: Registry[NeuronSelector] = Registry("neuron selector", __name__)
