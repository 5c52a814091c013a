"""Neurons drawn at random, as a baseline. The run's seed decides, so that every step removes the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from copal_core.methods.neuron_selector import NeuronSelector, Selection, check_share, lowest
from copal_core.methods.neurons import NEURONS
from copal_core.statistics.accumulators import BlockStatistics, Statistic


@NEURONS.register("random-neurons")
@dataclass(frozen=True)
class RandomNeurons(NeuronSelector):
    """Removes random neurons. `share`: of neurons to remove."""

    share: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.share)

    def statistics(self) -> tuple[Statistic, ...]:
        return ()

    def select(
        self, weights: Mapping[str, Tensor], statistics: BlockStatistics, generator: torch.Generator
    ) -> Selection:
        drawn = torch.rand(weights["down_proj"].shape[1], generator=generator)
        return lowest(drawn.to(weights["down_proj"].device), weights, self.share)
