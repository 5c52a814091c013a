"""Neurons whose weights the output is least sensitive to: COPAL's score summed over rows and column.

The score of a weight is |W_jk| Σ |y_j||x_k| over tokens (see the criterion `copal`). A neuron's score is the sum over
its row of gate, its row of up and its column of down. It is gathered as one number per neuron, without a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from copal_core.methods.neuron_selector import NeuronSelector, Selection, lowest
from copal_core.methods.neurons import NEURONS
from copal_core.statistics.accumulators import BlockStatistics


@NEURONS.register("copal-neurons")
@dataclass(frozen=True)
class CopalNeurons(NeuronSelector):
    """Removes the neurons with the lowest sensitivity. `share`: of neurons to remove."""

    cost: ClassVar[float] = 3.5
    colour: ClassVar[str] = "#E0607E"
    gathers: ClassVar[tuple[str, ...]] = ("RowSensitivity", "ColumnSensitivity")

    def select(
        self, weights: Mapping[str, Tensor], statistics: BlockStatistics, generator: torch.Generator
    ) -> Selection:
        rows = statistics.groups["mlp_input"].mean("row_sensitivity")
        return lowest(rows + statistics.groups["mlp_output"].mean("column_sensitivity"), weights, self.share)
