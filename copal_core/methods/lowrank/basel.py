"""Selection of singular bases for one application, by relearned scales (Basel, arXiv:2405.15877).

W = Σ_i s_i u_i v_iᵀ. The scales s are relearned on the target domain's language-model loss with u and v fixed;
bases whose relearned |s| is small are dropped, in several rounds down to the kept share; a few new trainable
bases are added; a short tuning of s and the new bases finishes.

For one layer without training the same idea has a closed form: the u_i are orthonormal, so that basis i contributes
s_i² v_iᵀ H v_i to the squared norm of the layer's output, and the bases that contribute least are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from copal_core.errors import InvalidValueError
from copal_core.methods.decomposition import Decomposition, Factors, check_rank
from copal_core.methods.linalg import svd, whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.lowrank.whitened_svd import whitened
from copal_core.statistics.accumulators import GroupStatistics

if TYPE_CHECKING:
    from copal_core.methods.factored.workshop import Member, Workshop


@LOWRANK.register("basel")
@dataclass(frozen=True)
class Basel(Decomposition):
    """Singular bases, selected by scales relearned in training.

    Attributes:
        keep: share of the bytes kept, new bases included; 0 takes the share of the run's structure.
        tokens: of relearning the scales, over all rounds.
        rounds: number of rounds in which bases are dropped.
        added: number of new bases as a share of the kept ones.
        tuning: tokens of the final tuning.
        rate: AdamW's learning rate of the scales, relative to their size.
        new_rate: AdamW's learning rate of the new bases.
        metric: plain for the singular bases of W, as published, or whitened for those of W L, whose scales measure
            the contribution to the output.
    """

    cost: ClassVar[float] = 9.0
    colour: ClassVar[str] = "#56B4E9"
    gathers: ClassVar[tuple[str, ...]] = ("InputGram",)

    tokens: float = 6144.0
    rounds: float = 3.0
    added: float = 0.05
    tuning: float = 8192.0
    rate: float = 1e-2
    new_rate: float = 3e-4
    metric: str = "plain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or self.rounds != int(self.rounds):
            raise InvalidValueError(f"rounds = {self.rounds} is not a number of rounds; use 1 or more")
        if not 0 <= self.added < 1:
            raise InvalidValueError(
                f"added = {self.added} is not a share of the kept bases; use 0 <= added < 1"
            )
        if self.tokens < 0 or self.tuning < 0:
            raise InvalidValueError("tokens and tuning are budgets; use 0 (training-free) or more")
        if self.metric not in ("whitened", "plain"):
            raise InvalidValueError(f"metric '{self.metric}' is not known; use whitened or plain")
        if not (self.rate > 0 and self.new_rate > 0):
            raise InvalidValueError("rate and new_rate are learning rates; use positive numbers")

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        """Select the bases that contribute most to the layer's output, without training."""
        check_rank(weight, rank)
        message = (
            "nothing was trained: bases chosen by the output they carry; `decompose` relearns the scales"
        )
        if self.metric == "whitened":
            found = whitened(weight, whiten(statistics.mean("input_gram")), rank)
            return replace(found, warnings={**found.warnings, "training-free": message})
        left, scales, right = svd(weight.double())
        carried = scales.square() * carried_by(right, statistics.mean("input_gram").double())  # (k,)
        kept = carried.argsort(descending=True, stable=True)[:rank].sort().values
        total = float(carried.sum())
        discarded = 1 - float(carried[kept].sum()) / total if total > 0 else 0.0
        return Factors(
            left[:, kept] * scales[kept], right[kept], 0.0, max(discarded, 0.0), {"training-free": message}
        )

    def family(self, work: Workshop, keep: float) -> Iterator[Member]:
        """One member: relearn, drop in rounds, add, tune."""
        from copal_core.methods.factored.bases import Bases

        yield Bases(self, work, keep).compute()


def carried_by(right: Tensor, gram: Tensor) -> Tensor:
    """Compute v_iᵀ H v_i of every basis.

    Args:
        right: (k, in), the v_i in rows.
        gram: (in, in), H.

    Returns:
        (k,), >= 0.
    """
    return torch.sum((right @ gram) * right, dim=1)
