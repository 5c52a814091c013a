"""Decompositions: two small factors in place of a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from copal_core.config import Structure
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.facts import FactorFacts
from copal_core.statistics.accumulators import GroupStatistics

if TYPE_CHECKING:
    from copal_core.methods.factored.workshop import Trained, Workshop


@dataclass(frozen=True)
class Factors:
    """left (out, r) and right (r, in): the layer is left @ right.

    damping: share of the mean diagonal added to the Gram matrix before it was factorised.
    discarded_energy: squared output error that the truncation predicts, over the output's energy, in the
    metric the decomposition works in. warnings: kind -> message.
    """

    left: Tensor
    right: Tensor
    damping: float = 0.0
    discarded_energy: float = 0.0
    warnings: Mapping[str, str] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    @property
    def parameters(self) -> int:
        return self.left.numel() + self.right.numel()

    @property
    def bytes(self) -> int:
        """As it is stored, at 16 bits a value."""
        return stored_size.rank_bytes(self.left.shape[0], self.right.shape[1], self.rank)

    def weight(self) -> Tensor:
        """(out, in), in the factors' precision."""
        return self.left @ self.right

    def in_half(self) -> Factors:
        """Factors rounded to the 16 bits that they are stored in, each half of every base equally large."""
        scale = self.left.norm(dim=0).clamp_min(1e-30), self.right.norm(dim=1).clamp_min(1e-30)
        balance = (scale[1] / scale[0]).sqrt()  # (r,)
        left, right = self.left * balance, self.right / balance[:, None]
        return Factors(left.half(), right.half(), self.damping, self.discarded_energy, self.warnings)


@dataclass(frozen=True)
class Masked:
    """The other way to be small: a masked weight (out, in) with its mask; what a hybrid may choose."""

    kept: Tensor
    structure: Structure
    values: Tensor | None = None  # (out, in) when the values differ from the dense ones
    warnings: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return int(torch.count_nonzero(self.kept))

    @property
    def bytes(self) -> int:
        """As it is stored, index included, at 16 bits a value."""
        rows, columns = self.kept.shape
        return stored_size.structure_bytes(self.structure, rows, columns, self.parameters)


@dataclass(frozen=True)
class Choice:
    """The result for one projection; errors are relative output errors under the statistics used.

    alternative_error: of what a hybrid did not choose.
    """

    result: Factors | Masked
    output_error: float | None = None
    alternative_error: float | None = None


@dataclass(frozen=True)
class Decomposition(FactorFacts, ABC):
    """Two small factors in place of a weight. Options are the fields of the dataclass, facts its class attributes.

    keep: share of the dense bytes that may be stored; 0 stands for what the run's structure leaves.
    """

    keep: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.keep <= 1:
            raise InvalidValueError(
                f"keep = {self.keep} is not a share of the stored bytes; use 0 < keep <= 1, such as 0.8"
            )

    @abstractmethod
    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        """The best factors of `rank`, float64.

        weight: (out, in), any float dtype. statistics: of the layer's input. rank: 1 to min(out, in).
        Raises InvalidValueError for another rank, NumericalError for statistics that are not finite.
        """

    def decompose_group(
        self, weights: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
    ) -> dict[str, Choice]:
        """Every projection that reads one input, each at the same share of its bytes."""
        share = self.share(structure)
        return {name: Choice(self.at_share(weight, statistics, share)) for name, weight in weights.items()}

    def at_share(self, weight: Tensor, statistics: GroupStatistics, share: float) -> Factors:
        """The factors that fit `share` of the bytes, of rank 1 at least."""
        rank = stored_size.rank_at(weight.shape[0], weight.shape[1], share)
        if rank >= 1:
            return self.decompose(weight, statistics, rank)
        found = self.decompose(weight, statistics, 1)
        message = f"not even rank 1 fits {share:.1%} of this layer's bytes; rank 1 was used"
        return Factors(
            found.left,
            found.right,
            found.damping,
            found.discarded_energy,
            {**found.warnings, "rank": message},
        )

    def train(self, work: Workshop, keep: float) -> Trained:
        """Factorise and train all layers of a checkpoint together; asked only where `training_tokens` is not 0.

        Args:
            work: the model, its layers with their statistics, and the text to train on.
            keep: share of the dense bytes that the factors of each layer may take, above 0 and up to 1.

        Returns:
            Factors of every layer of `work`, of the ranks that `at_share` gives them.
        """
        raise NotImplementedError(f"{self.name} trains nothing")

    def share(self, structure: Structure) -> float:
        """The share of the dense bytes kept in a run of `structure`."""
        return self.keep or stored_size.structure_share(structure)


def check_rank(weight: Tensor, rank: int) -> None:
    """Raises InvalidValueError unless 1 <= rank <= min(out, in)."""
    if not 1 <= rank <= min(weight.shape):
        raise InvalidValueError(
            f"rank {rank} does not fit a layer of {tuple(weight.shape)}; use 1 to {min(weight.shape)}"
        )


def relative_error(weight: Tensor, approximation: Tensor, gram: Tensor) -> float:
    """tr((W − Ŵ) H (W − Ŵ)ᵀ) / tr(W H Wᵀ): the share of the layer's output that is lost.

    weight, approximation: (out, in); gram: (in, in), of any one precision. 0 for a layer without output.
    """
    difference = weight - approximation
    energy = float(torch.sum((weight @ gram) * weight))
    lost = float(torch.sum((difference @ gram) * difference))
    return max(lost, 0.0) / energy if energy > 0 else 0.0
