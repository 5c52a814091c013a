"""Neurons drawn at random, as a baseline. The run's seed decides, so that every step removes the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from copal_core.methods.neuron_selector import NeuronSelector, Selection, lowest
from copal_core.methods.neurons import NEURONS
from copal_core.statistics.accumulators import BlockStatistics


@NEURONS.register("random-neurons")
@dataclass(frozen=True)
class RandomNeurons(NeuronSelector):
    """Removes random neurons. `share`: of neurons to remove."""

    cost: ClassVar[float] = 0.2
    colour: ClassVar[str] = "#A6761D"

    def select(
        self, weights: Mapping[str, Tensor], statistics: BlockStatistics, generator: torch.Generator
    ) -> Selection:
        drawn = torch.rand(weights["down_proj"].shape[1], generator=generator)
        return lowest(drawn.to(weights["down_proj"].device), weights, self.share)
