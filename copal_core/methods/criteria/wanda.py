"""Weight times the norm of its input, |W|·‖X‖ (Sun et al., arXiv:2306.11695)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion
from copal_core.statistics.accumulators import GroupStatistics


@CRITERIA.register("wanda")
@dataclass(frozen=True)
class Wanda(Criterion):
    """|W_jk| times the root mean square of input feature k.

    The paper uses the norm ‖X_k‖₂. The root mean square divides all scores of a layer by the same number, which
    does not change the mask and makes domains of different size comparable.
    """

    cost: ClassVar[float] = 2.1
    colour: ClassVar[str] = "#0072B2"
    gathers: ClassVar[tuple[str, ...]] = ("InputSquareSum",)

    def score(self, weight: Tensor, statistics: GroupStatistics) -> Tensor:
        # float32: in half precision small products tie, and the ties would decide the mask
        return weight.float().abs() * statistics.mean("input_square_sum").sqrt()
