"""Ranks r_0 > r_1 > … of one parent, each refactorised from the one before (PLRD, arXiv:2406.19995).

A step truncates the previous *factors*: QR of both, SVD of the small core, never the dense weight; then the
factored model goes on with pretraining before the next step. The last size is the result; with a budget of 0 tokens
nothing is trained, and it is labelled training-free. The first size and every truncation work in the whitened
metric of the calibration text (the paper truncates in the plain one, option `metric=plain`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Decomposition, Factors, check_rank
from copal_core.methods.factored.training import Outcome
from copal_core.methods.factored.workshop import Trained, Workshop
from copal_core.methods.linalg import svd, truncate, whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.statistics.accumulators import GroupStatistics, Statistic


@LOWRANK.register("plrd")
@dataclass(frozen=True)
class Plrd(Decomposition):
    """keep: share of the bytes kept; 0: as the run's structure.

    members: sizes on the way from the dense one to `keep`, evenly spaced, `keep` included. tokens: of continued
    pretraining at each size. rate: AdamW's learning rate. metric: whitened or plain.
    """

    cost: ClassVar[float] = 12.0
    colour: ClassVar[str] = "#6B8E23"
    gathers: ClassVar[tuple[str, ...]] = ("InputGram",)
    needs_full_rank: ClassVar[bool] = True
    training: ClassVar[tuple[tuple[str, ...], ...]] = (("members", "tokens"),)

    members: float = 2.0
    tokens: float = 8192.0
    rate: float = 1e-4
    metric: str = "whitened"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.members < 1 or self.members != int(self.members):
            raise InvalidValueError(f"members = {self.members} is not a number of sizes; use 1 or more")
        if self.tokens < 0:
            raise InvalidValueError(f"tokens = {self.tokens} is not a budget; use 0 (training-free) or more")
        if not self.rate > 0:
            raise InvalidValueError(
                f"rate = {self.rate} is not a learning rate; use a positive number such as 1e-4"
            )
        if self.metric not in ("whitened", "plain"):
            raise InvalidValueError(f"metric '{self.metric}' is not known; use whitened or plain")

    def statistics(self) -> tuple[Statistic, ...]:
        return super().statistics() if self.metric == "whitened" else ()

    def shares(self, keep: float) -> list[float]:
        """Kept shares of the sizes on the way, falling to `keep`."""
        count = int(self.members)
        return [1 - (1 - keep) * step / count for step in range(1, count + 1)]

    def decompose(self, weight: Tensor, statistics: GroupStatistics, rank: int) -> Factors:
        """Without training: factorised at each rank of the schedule in turn."""
        check_rank(weight, rank)
        rows, columns = weight.shape
        share = stored_size.rank_share(rows, columns, rank)
        ranks = [
            min(max(stored_size.rank_at(rows, columns, one), rank), min(rows, columns))
            for one in self.shares(share)[:-1]
        ]
        whitening = whiten(statistics.mean("input_gram")) if self.statistics() else None
        metric = whitening.lower if whitening else None
        first, *rest = [*ranks, rank]
        left, right, discarded = truncate(weight.double(), metric, first)
        for one in rest:
            left, right, lost = refactorise(left, right, one, metric)
            discarded = 1 - (1 - discarded) * (1 - lost)  # shares of what was left each time
        warnings = {}
        if not self.training_tokens:
            warnings["training-free"] = (
                "nothing was trained: refactorised only; tokens=8192 trains at each size"
            )
        damping = whitening.damping if whitening else 0.0
        return Factors(
            left, right, damping, discarded, {**warnings, **(whitening.warnings if whitening else {})}
        )

    def train(self, work: Workshop, keep: float) -> Trained:
        """Refactorise and train at every size, from the largest down to `keep`."""
        trained, outcome = Trained({}, Outcome()), Outcome()
        for number, share in enumerate(self.shares(keep), start=1):
            factors = self._step(work, trained.factors, share)
            label = f"training size {number} of {int(self.members)}"
            trained = work.train(factors, int(self.tokens), self.rate, label)
            outcome = outcome.then(trained.outcome)
        return Trained(trained.factors, outcome)

    def _step(self, work: Workshop, before: dict[str, Factors], share: float) -> dict[str, Factors]:
        """Every layer at `share` of its bytes, from its factors `before`, at first from its weight."""

        def one(weight: Tensor, statistics: GroupStatistics, previous: Factors | None) -> Factors:
            metric = whiten(statistics.mean("input_gram")) if self.statistics() else None
            rank = max(1, stored_size.rank_at(weight.shape[0], weight.shape[1], share))
            lower = metric.lower if metric else None
            if previous is None:
                left, right, lost = truncate(weight.double(), lower, rank)
            else:
                left, right, lost = refactorise(previous.left.double(), previous.right.double(), rank, lower)
            return Factors(
                left, right, metric.damping if metric else 0.0, lost, metric.warnings if metric else {}
            )

        return work.each(one, before, f"factorising at {share:.0%} of the bytes")


def refactorise(
    left: Tensor, right: Tensor, rank: int, metric: Tensor | None = None
) -> tuple[Tensor, Tensor, float]:
    """Truncate a product of two factors to a lower rank without forming it.

    Args:
        left: (out, r) float64.
        right: (r, in) float64.
        rank: new rank, 1 to r.
        metric: L, (in, in) lower triangular, of the norm ‖(·) L‖; None for the plain norm.

    Returns:
        left (out, rank), right (rank, in), and the discarded share of the squared norm.

    Raises:
        InvalidValueError: the rank is not between 1 and r.
    """
    if not 1 <= rank <= left.shape[1]:
        raise InvalidValueError(
            f"rank {rank} cannot be reached from factors of rank {left.shape[1]}; it only falls"
        )
    # QR of both factors: left = Q_a R_a and (right L)ᵀ = Q_b R_b
    q, r = torch.linalg.qr(left)  # (out, k), (k, r)
    whitened = right if metric is None else right @ metric
    _, other = torch.linalg.qr(whitened.T)  # (k', r)
    # the core R_a R_bᵀ = U Σ Vᵀ has the singular values of the product, and Q_a U its left singular vectors
    u, values, _ = svd(r @ other.T)
    energies = values.square()
    total = float(energies.sum())
    kept = u[:, :rank]
    # projecting onto the kept output directions, left right -> Q_a U_r U_rᵀ R_a right, truncates in any metric
    discarded = float(energies[rank:].sum()) / total if total > 0 else 0.0
    return q @ kept, (kept.T @ r) @ right, discarded
