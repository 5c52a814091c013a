"""Neurons with the smallest weights: the sum of squares of gate's and up's rows and of down's column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from copal_core.methods.neuron_selector import NeuronSelector, Selection, lowest
from copal_core.methods.neurons import NEURONS
from copal_core.statistics.accumulators import BlockStatistics


@NEURONS.register("magnitude-neurons")
@dataclass(frozen=True)
class MagnitudeNeurons(NeuronSelector):
    """Removes the neurons with the smallest weights. `share`: of neurons to remove."""

    cost: ClassVar[float] = 0.2
    colour: ClassVar[str] = "#A97BC9"

    def select(
        self, weights: Mapping[str, Tensor], statistics: BlockStatistics, generator: torch.Generator
    ) -> Selection:
        rows = weights["gate_proj"].float().square().sum(dim=1) + weights["up_proj"].float().square().sum(
            dim=1
        )
        return lowest(rows + weights["down_proj"].float().square().sum(dim=0), weights, self.share)
