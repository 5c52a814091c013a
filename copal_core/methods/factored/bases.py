"""Basel's lifecycle over a whole checkpoint: relearn scales, drop bases in rounds, add new ones, tune."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from copal_core.checkpoints.layout import place_of
from copal_core.methods import stored_size
from copal_core.methods.factored.modules import ScaledBases, bias_of, replaced
from copal_core.methods.factored.training import Outcome
from copal_core.methods.factored.workshop import Member, Trained, Workshop
from copal_core.methods.linalg import output_directions, svd, whiten
from copal_core.statistics.accumulators import GroupStatistics

if TYPE_CHECKING:
    from copal_core.methods.lowrank.basel import Basel


@dataclass
class Bases:
    """One decomposition; `compute` does all of it. keep: share of the bytes at the end, new bases included."""

    options: Basel
    work: Workshop
    keep: float
    _modules: dict[str, ScaledBases] = field(default_factory=dict)
    _before: dict[str, torch.Tensor] = field(default_factory=dict)
    _index: dict[str, torch.Tensor] = field(default_factory=dict)
    _outcome: Outcome = field(default_factory=Outcome)

    def compute(self) -> Member:
        """The finished member; its details hold scales before and after, and what was dropped and added."""
        options, model = self.options, self.work.backbone.causal_lm()
        self._split()
        final = {name: self._ranks(module) for name, module in self._modules.items()}
        rounds, full = int(options.rounds), {name: len(m.start) for name, m in self._modules.items()}
        with replaced(model, dict(self._modules)):
            for number in range(1, rounds + 1):
                self._relearn(
                    model, int(options.tokens) // rounds, f"relearning scales, round {number} of {rounds}"
                )
                for name, module in self._modules.items():
                    kept, _ = final[name]
                    self._drop(name, module, round(full[name] - (full[name] - kept) * number / rounds))
            self._tune(model, {name: new for name, (_, new) in final.items()})
        factors = {name: module.factors() for name, module in self._modules.items()}
        trained, share = Trained(factors, self._outcome), min(1.0, self.keep)
        return self.work.member(f"basel-{share:.3f}", share, trained, bases=self._described(final))

    def _split(self) -> None:
        """Every layer into all of its singular bases."""
        model = self.work.backbone.causal_lm()
        for name, weight, given in self.work.layers("splitting layers into bases"):
            left, scales, right = split(weight, given, self.options.metric)
            linear = model.get_submodule(name)
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

    def _relearn(self, model: torch.nn.Module, tokens: int, label: str) -> None:
        gains = [module.gain for module in self._modules.values()]
        self._outcome = self._outcome.then(self.work.fit(model, [(gains, self.options.rate)], tokens, label))

    def _drop(self, name: str, module: ScaledBases, count: int) -> None:
        """Keep the `count` bases whose relearned scale is largest, in their old order."""
        chosen = module.scales.detach().abs().argsort(descending=True, stable=True)[:count].sort().values
        module.keep(chosen)
        self._index[name] = self._index[name][chosen.cpu()]

    def _tune(self, model: torch.nn.Module, added: dict[str, int]) -> None:
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
        tuned = self.work.fit(model, used, int(self.options.tuning), "tuning scales and new bases")
        self._outcome = self._outcome.then(tuned)

    def _described(self, final: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
        """One entry a layer: the scales before, which bases stayed with which scales, how many are new."""
        found = []
        for name, module in self._modules.items():
            block, projection = place_of(name)
            found.append(
                {
                    "block": block,
                    "projection": projection,
                    "before": [round(float(s), 5) for s in self._before[name]],
                    "kept": self._index[name].tolist(),
                    "after": [round(float(s), 5) for s in module.scales.detach()],
                    "added": final[name][1],
                }
            )
        return found


def split(
    weight: torch.Tensor, given: GroupStatistics, metric: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u (out, k) in columns, s (k,) and v (k, in) in rows with W = Σ s_i u_i v_iᵀ, float64, s descending.

    plain: the singular value decomposition. whitened: that of W L, where s_i² is the output energy basis i carries.
    """
    if metric == "plain":
        return svd(weight.double())
    left, energies = output_directions(weight.double(), whiten(given.mean("input_gram")).lower)
    scales = energies.sqrt().clamp_min(1e-12 * float(energies[0].sqrt()) or 1.0)
    return left, scales, (left.T @ weight.double()) / scales[:, None]
