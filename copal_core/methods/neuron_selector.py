"""Neuron selectors: which hidden neurons of a block go.

A hidden neuron k of a block is row k of gate and up and column k of down. Removing it is exact where its column
of down is zero, so that a block with fewer neurons and one with zeroed neurons compute the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from copal_core.errors import InvalidValueError
from copal_core.methods.facts import NeuronFacts
from copal_core.statistics.accumulators import BlockStatistics

NO_TWIN = -1


@dataclass(frozen=True)
class Selection:
    """The neurons of a block that go, in the order in which they were chosen.

    kept: (d_ff,) bool. removed: (m,) int64. twins: (m,) int64, the neuron each was redundant with, or NO_TWIN.
    information: (m,) float32, nats shared with the twin, NaN without one. coefficients: (m,) float32, what of the
    removed neuron's column of down is added to its twin's; 0 without compensation. warnings: kind -> message.
    """

    kept: Tensor
    removed: Tensor
    twins: Tensor
    information: Tensor
    coefficients: Tensor
    warnings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NeuronSelector(NeuronFacts, ABC):
    """Chooses neurons of one block. Options are the fields of the dataclass, facts its class attributes.

    share: of the block's hidden neurons that go, the same number in every block.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InvalidValueError(
                f"share = {self.share} is not a share of the neurons to remove; use 0 <= share < 1, such as 0.1"
            )

    @abstractmethod
    def select(
        self, weights: Mapping[str, Tensor], statistics: BlockStatistics, generator: torch.Generator
    ) -> Selection:
        """Choose the neurons that go.

        weights: gate_proj and up_proj (d_ff, hidden), down_proj (hidden, d_ff). generator: of this block.
        """


def count_of(share: float, neurons: int) -> int:
    """How many of `neurons` a share is, to the nearest whole number; at least one stays."""
    return min(neurons - 1, round(share * neurons))


def gone_already(weights: Mapping[str, Tensor]) -> Tensor:
    """(d_ff,) bool: neurons that an earlier step removed, whose column of down is zero."""
    return ~weights["down_proj"].any(dim=0)


def lowest(scores: Tensor, weights: Mapping[str, Tensor], share: float) -> Selection:
    """Remove the neurons of the lowest scores, those that are gone already first; ties by index.

    scores: (d_ff,), larger means keep.
    """
    ranked = torch.where(gone_already(weights), -torch.inf, scores.float())
    removed = ranked.sort(stable=True).indices[: count_of(share, len(ranked))].cpu()
    return without_twins(removed, len(ranked))


def without_twins(removed: Tensor, neurons: int) -> Selection:
    """A selection by scores alone: nothing is known of pairs. removed: (m,) int64 on the CPU."""
    kept = torch.ones(neurons, dtype=torch.bool)
    kept[removed] = False
    nothing = torch.full((len(removed),), torch.nan)
    return Selection(kept, removed, torch.full_like(removed, NO_TWIN), nothing, torch.zeros(len(removed)))


def removed_weights(weights: Mapping[str, Tensor], selection: Selection) -> dict[str, Tensor]:
    """gate_proj, up_proj and down_proj with zeros for removed neurons, float32, compensation folded in.

    A twin may be removed later itself, with what it had been given: the folds are made in the order of removal.
    """
    kept = selection.kept.to(weights["down_proj"].device)
    down = weights["down_proj"].double()  # (hidden, d_ff)
    down = down.clone() if down is weights["down_proj"] else down
    for gone, twin, factor in _folds(selection):
        down[:, twin] += factor * down[:, gone]
    return {
        "gate_proj": weights["gate_proj"].float() * kept[:, None],
        "up_proj": weights["up_proj"].float() * kept[:, None],
        "down_proj": (down * kept).float(),
    }


def changed_columns(selection: Selection) -> Tensor:
    """(c,) int64: kept columns of down that received something, in ascending order."""
    given = selection.twins[(selection.twins != NO_TWIN) & (selection.coefficients != 0)].unique()
    return given[selection.kept[given]]


def _folds(selection: Selection) -> Sequence[tuple[int, int, float]]:
    columns = (selection.removed, selection.twins, selection.coefficients)
    triples = zip(*(column.tolist() for column in columns), strict=True)
    return [(gone, twin, factor) for gone, twin, factor in triples if twin != NO_TWIN and factor]
