"""Selection of singular bases for one application, by relearned scales (Basel, arXiv:2405.15877).

W = Σ_i s_i u_i v_iᵀ. The scales s are relearned on the language-model loss of the text with u and v fixed;
bases whose relearned |s| is small are dropped, in several rounds down to the kept share; a few new trainable
bases are added; a short tuning of s and the new bases finishes.

For one layer without training the same idea has a closed form: the u_i are orthonormal, so that basis i contributes
s_i² v_iᵀ H v_i to the squared norm of the layer's output, and the bases that contribute least are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Decomposition, Factors, check_rank
from copal_core.methods.factored.modules import ScaledBases, bias_of, replaced
from copal_core.methods.factored.training import Outcome
from copal_core.methods.factored.workshop import Trained, Workshop
from copal_core.methods.linalg import output_directions, svd, whiten
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.lowrank.whitened_svd import whitened
from copal_core.statistics.accumulators import GroupStatistics


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
    training: ClassVar[tuple[tuple[str, ...], ...]] = (("tokens",), ("tuning",))

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
            "nothing was trained: bases chosen by the output they carry; tokens=6144 relearns the scales"
        )
        free = {} if self.training_tokens else {"training-free": message}
        if self.metric == "whitened":
            found = whitened(weight, whiten(statistics.mean("input_gram")), rank)
            return replace(found, warnings={**found.warnings, **free})
        left, scales, right = svd(weight.double())
        carried = scales.square() * carried_by(right, statistics.mean("input_gram").double())  # (k,)
        kept = carried.argsort(descending=True, stable=True)[:rank].sort().values
        total = float(carried.sum())
        discarded = 1 - float(carried[kept].sum()) / total if total > 0 else 0.0
        return Factors(left[:, kept] * scales[kept], right[kept], 0.0, max(discarded, 0.0), free)

    def train(self, work: Workshop, keep: float) -> Trained:
        """Relearn the scales, drop bases in rounds, add new ones, tune."""
        return _Bases(self, work, keep).train()


@dataclass
class _Bases:
    """The bases of all layers of one checkpoint. keep: share of the bytes at the end, new bases included."""

    options: Basel
    work: Workshop
    keep: float
    _modules: dict[str, ScaledBases] = field(default_factory=dict)
    _before: dict[str, Tensor] = field(default_factory=dict)
    _index: dict[str, Tensor] = field(default_factory=dict)
    _outcome: Outcome = field(default_factory=Outcome)

    def train(self) -> Trained:
        """All steps in turn. The arrays hold scales before and after, the bases that stayed, how many are new."""
        options = self.options
        self._split()
        final = {name: self._ranks(module) for name, module in self._modules.items()}
        rounds, full = int(options.rounds), {name: len(m.start) for name, m in self._modules.items()}
        with replaced(self.work.model, dict(self._modules)):
            for number in range(1, rounds + 1):
                self._relearn(int(options.tokens) // rounds, f"relearning scales, round {number} of {rounds}")
                for name, module in self._modules.items():
                    kept, _ = final[name]
                    self._drop(name, module, round(full[name] - (full[name] - kept) * number / rounds))
            self._tune({name: new for name, (_, new) in final.items()})
        factors = {name: module.factors() for name, module in self._modules.items()}
        return Trained(factors, self._outcome, self._described(final))

    def _split(self) -> None:
        """Every layer into all of its singular bases."""
        for name, weight, given in self.work.layers("splitting layers into bases"):
            left, scales, right = split(weight, given, self.options.metric)
            linear = self.work.model.get_submodule(name)
            like = weight.to(next(linear.parameters()))
            made = ScaledBases(left.to(like), scales.to(like), right.to(like), bias_of(linear))
            self._modules[name] = made
            self._before[name], self._index[name] = scales.float(), torch.arange(len(scales))

    def _ranks(self, module: ScaledBases) -> tuple[int, int]:
        """Kept old bases and new ones, so that both together fit the budget."""
        rows, columns = module.u.shape[0], module.v.shape[1]
        rank = max(1, stored_size.rank_at(rows, columns, self.keep))
        if rank >= min(rows, columns) or not self.options.tuning:
            return rank, 0
        new = min(round(rank * self.options.added), rank - 1)
        return rank - new, new

    def _relearn(self, tokens: int, label: str) -> None:
        gains = [module.gain for module in self._modules.values()]
        self._outcome = self._outcome.then(self.work.fit([(gains, self.options.rate)], tokens, label))

    def _drop(self, name: str, module: ScaledBases, count: int) -> None:
        """Keep the `count` bases whose relearned scale is largest, in their old order."""
        chosen = module.scales.detach().abs().argsort(descending=True, stable=True)[:count].sort().values
        module.keep(chosen)
        self._index[name] = self._index[name][chosen.cpu()]

    def _tune(self, added: dict[str, int]) -> None:
        if not self.options.tuning:
            return
        generator = torch.Generator().manual_seed(self.work.seed)
        for name, module in self._modules.items():
            if added[name]:
                module.add(added[name], generator)
        modules = self._modules.values()
        new = [p for m in modules for p in (m.new_left, m.new_right) if p is not None]
        groups = [([m.gain for m in modules], self.options.rate), (new, self.options.new_rate)]
        used = [(group, rate) for group, rate in groups if group]
        tuned = self.work.fit(used, int(self.options.tuning), "tuning scales and new bases")
        self._outcome = self._outcome.then(tuned)

    def _described(self, final: dict[str, tuple[int, int]]) -> dict[str, dict[str, Tensor]]:
        """Of each layer: the scales before, which bases stayed with which scales, how many are new."""
        return {
            name: {
                "before": self._before[name],
                "kept": self._index[name],
                "after": module.scales.detach().float(),
                "added": torch.tensor(final[name][1]),
            }
            for name, module in self._modules.items()
        }


def split(weight: Tensor, given: GroupStatistics, metric: str) -> tuple[Tensor, Tensor, Tensor]:
    """u (out, k) in columns, s (k,) and v (k, in) in rows with W = Σ s_i u_i v_iᵀ, float64, s descending.

    plain: the singular value decomposition. whitened: that of W L, where s_i² is the output energy basis i carries.
    """
    if metric == "plain":
        return svd(weight.double())
    left, energies = output_directions(weight.double(), whiten(given.mean("input_gram")).lower)
    scales = energies.sqrt().clamp_min(1e-12 * float(energies[0].sqrt()) or 1.0)
    return left, scales, (left.T @ weight.double()) / scales[:, None]


def carried_by(right: Tensor, gram: Tensor) -> Tensor:
    """Compute v_iᵀ H v_i of every basis.

    Args:
        right: (k, in), the v_i in rows.
        gram: (in, in), H.

    Returns:
        (k,), >= 0.
    """
    return torch.sum((right @ gram) * right, dim=1)
