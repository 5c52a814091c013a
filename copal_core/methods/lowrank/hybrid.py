"""For each layer the better of a mask and the whitened SVD, at equal bytes.

The better one loses less of the layer's output on the calibration text. Both losses follow from the Gram matrix,
without a forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from copal_core.config import Structure
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.criterion import build_criterion
from copal_core.methods.decomposition import (
    Choice,
    Decomposition,
    Factors,
    Masked,
    relative_error,
)
from copal_core.methods.linalg import whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.lowrank.whitened_svd import WhitenedSvd, whitened
from copal_core.statistics.accumulators import GroupStatistics, InputGram, Statistic


@LOWRANK.register("hybrid")
@dataclass(frozen=True)
class Hybrid(Decomposition):
    """A mask or low-rank factors, chosen for each layer.

    Attributes:
        keep: share of the bytes kept; 0 takes the share of the run's structure.
        mask: the criterion that makes the mask.
    """

    cost: ClassVar[float] = 12.0
    colour: ClassVar[str] = "#9C8F00"
    gathers: ClassVar[tuple[str, ...]] = ("InputGram", "InputSquareSum")
    needs_full_rank: ClassVar[bool] = True

    mask: str = "wanda"

    def __post_init__(self) -> None:
        super().__post_init__()
        build_criterion(self.mask, {})

    def statistics(self) -> tuple[Statistic, ...]:
        statistics = (InputGram(), *build_criterion(self.mask, {}).statistics())
        return tuple({statistic.name: statistic for statistic in statistics}.values())  # each name once

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        """Return the low-rank candidate."""
        return whitened(weight, whiten(statistics.mean("input_gram")), rank)

    def decompose_group(
        self, weights: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
    ) -> dict[str, Choice]:
        criterion = build_criterion(self.mask, {})
        factors = WhitenedSvd(self.keep).decompose_group(weights, statistics, structure)
        gram, masked = statistics.mean("input_gram"), self.mask_structure(structure)
        parts = statistics.by_rows([weight.shape[0] for weight in weights.values()])
        choices = {}
        for (name, weight), own in zip(weights.items(), parts, strict=True):
            pruned = criterion.prune(weight, own, masked, [weight.shape[0]])
            values = pruned.weight if criterion.updates_weights else None
            low = factors[name].result
            if not isinstance(low, Factors):
                raise InvalidValueError("the whitened SVD gives factors")
            by_mask = relative_error(weight.float(), pruned.weight, gram)
            by_rank = relative_error(weight.float(), low.in_half().weight().float(), gram)
            if by_mask <= by_rank:
                mask = Masked(pruned.kept, masked, values, pruned.warnings)
                choices[name] = Choice(mask, by_mask, by_rank)
            else:
                choices[name] = Choice(low, by_rank, by_mask)
        return choices

    def mask_structure(self, structure: Structure) -> Structure:
        """Return the run's structure, or the sparsity per row that fits into `keep` of the bytes."""
        if not self.keep:
            return structure
        return Structure(sparsity=min(stored_size.sparsity_at(self.keep), 0.999))
