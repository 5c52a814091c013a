"""For every layer the better of a mask and the whitened SVD, at equal bytes.

Better means: loses less of the layer's output on the text seen, which both are measured on without a forward pass.
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
    """keep: share of the bytes kept; 0: as the run's structure. mask: the criterion that may win a layer."""

    cost: ClassVar[float] = 12.0
    colour: ClassVar[str] = "#9C8F00"
    gathers: ClassVar[tuple[str, ...]] = ("InputGram", "InputSquareSum")
    needs_full_rank: ClassVar[bool] = True

    mask: str = "wanda"

    def __post_init__(self) -> None:
        super().__post_init__()
        build_criterion(self.mask, {})

    def statistics(self) -> tuple[Statistic, ...]:
        needed = {one.name: one for one in (InputGram(), *build_criterion(self.mask, {}).statistics())}
        return tuple(needed.values())

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        """What the low-rank side offers."""
        return whitened(weight, whiten(statistics.mean("input_gram")), rank)

    def decompose_group(
        self, weights: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
    ) -> dict[str, Choice]:
        criterion = build_criterion(self.mask, {})
        factors = WhitenedSvd(self.keep).decompose_group(weights, statistics, structure)
        gram, masked = statistics.mean("input_gram"), self.mask_structure(structure)
        parts = statistics.by_rows([weight.shape[0] for weight in weights.values()])
        found = {}
        for (name, weight), own in zip(weights.items(), parts, strict=True):
            pruned = criterion.prune(weight, own, masked, [weight.shape[0]])
            values = pruned.weight if criterion.updates_weights else None
            low = factors[name].result
            if not isinstance(low, Factors):
                raise InvalidValueError("the whitened SVD gives factors")
            by_mask = relative_error(weight.float(), pruned.weight, gram)
            by_rank = relative_error(weight.float(), low.in_half().weight().float(), gram)
            if by_mask <= by_rank:
                found[name] = Choice(Masked(pruned.kept, masked, values, pruned.warnings), by_mask, by_rank)
            else:
                found[name] = Choice(low, by_rank, by_mask)
        return found

    def mask_structure(self, structure: Structure) -> Structure:
        """The run's structure, or within rows the sparsity that fits `keep`."""
        if not self.keep:
            return structure
        return Structure(sparsity=min(stored_size.sparsity_at(self.keep), 0.999))
