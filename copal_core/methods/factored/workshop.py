"""Where a decomposition of a whole checkpoint is made: its layers, its text, its training, its members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone, linears
from copal_core.checkpoints.layout import GROUPS, module_name
from copal_core.errors import Cancelled
from copal_core.methods.decomposition import Decomposition, Factors
from copal_core.methods.factored.modules import factored_modules, replaced
from copal_core.methods.factored.training import Budget, Outcome, train
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.statistics.library import LayerLibrary, combined

Report = Callable[[str, int, int], None]
One = Callable[[Tensor, GroupStatistics, Factors | None], Factors]


@dataclass(frozen=True)
class Trained:
    """Factors by module name, and how they were trained."""

    factors: dict[str, Factors]
    outcome: Outcome


@dataclass(frozen=True)
class Member:
    """One size of a decomposed checkpoint.

    factors: module name -> factors; a layer without any stays dense. tokens: trained on, counted again in every
    pass. label: how much was trained, in words. details: what the method wants to show besides (distinct tokens,
    losses, scales).
    """

    name: str
    share: float
    factors: Mapping[str, Factors]
    tokens: int
    label: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def weights(self, index: int, block: nn.Module) -> dict[str, Tensor]:
        """For `evaluate`: the weights of block `index`, as they come out of what is stored."""
        found = {}
        for projection, linear in linears(block).items():
            one = self.factors.get(module_name(index, projection))
            if one is not None:
                merged = _stored(one, linear.weight).weight().float()
                found[projection] = merged.to(linear.weight.device, linear.weight.dtype)
        return found


def _stored(factors: Factors, weight: Tensor) -> Factors:
    """16-bit factors as numbers in single precision; where the dense layer is smaller, it is stored merged."""
    if factors.parameters >= weight.numel():
        return factors
    half = factors.in_half()
    return replace(half, left=half.left.float(), right=half.right.float())


@dataclass
class Workshop:
    """backbone: in float32. targets: the domains that are calibrated and trained on.

    report: label, done, total. should_stop: asked often; Cancelled is raised then.
    """

    backbone: Backbone
    library: LayerLibrary
    targets: Sequence[str]
    seed: int = 0
    report: Report = lambda label, done, total: None
    should_stop: Callable[[], bool] = lambda: False

    def layers(self, label: str) -> Iterator[tuple[str, Tensor, GroupStatistics]]:
        """Module name, weight (out, in) float32 and target statistics of every projection."""
        for block in range(self.library.blocks):
            if self.should_stop():
                raise Cancelled("the decomposition was cancelled")
            self.report(label, block, self.library.blocks)
            for names in GROUPS.values():
                given = combined(self.library.statistics(block, names[0]), self.targets)
                for projection in names:
                    yield module_name(block, projection), self.library.weight(block, projection), given

    def each(self, one: One, before: Mapping[str, Factors] | None, label: str) -> dict[str, Factors]:
        """`one` applied to every projection with the factors it had before."""
        found = {}
        for name, weight, given in self.layers(label):
            made = one(weight, given, before[name] if before else None)
            found[name] = replace(made, left=made.left.float(), right=made.right.float())
        return found

    def windows(self) -> Tensor:
        """The targets' calibration windows (count, length): the only text that is trained on."""
        chosen = [domain.calibration for domain in self.library.domains if domain.name in self.targets]
        return torch.cat(chosen)

    def train(self, factors: Mapping[str, Factors], tokens: int, rate: float, label: str) -> Trained:
        """Continued pretraining of all factors for `tokens` tokens; nothing is trained for 0."""
        if tokens <= 0:
            return Trained(dict(factors), Outcome())
        model = self.backbone.causal_lm()
        modules = factored_modules(model, factors, self.backbone.dtype)
        learning = [p for module in modules.values() for p in (module.left, module.right)]
        with replaced(model, modules):
            outcome = self.fit(model, [(learning, rate)], tokens, label)
        done = {
            name: replace(factors[name], left=module.left.detach(), right=module.right.detach())
            for name, module in modules.items()
        }
        return Trained(done, outcome)

    def fit(
        self,
        model: nn.Module,
        parameters: Sequence[tuple[Sequence[nn.Parameter], float]],
        tokens: int,
        label: str,
    ) -> Outcome:
        """`train` on the targets' windows with this workshop's seed, progress and cancel."""
        budget = Budget(tokens, label, self.seed)
        return train(model, parameters, self.windows(), budget, self.report, self.should_stop)

    def untrained(self, decomposition: Decomposition, keep: float) -> Member:
        """Every layer decomposed by itself at `keep` of its bytes."""

        def one(weight: Tensor, given: GroupStatistics, before: Factors | None) -> Factors:
            return decomposition.at_share(weight, given, keep)

        factors = self.each(one, None, f"{decomposition.name} at {keep:.0%} of the bytes")
        return self.member(f"{decomposition.name}-{keep:.3f}", keep, Trained(factors, Outcome()))

    def member(self, name: str, share: float, trained: Trained, **details: Any) -> Member:
        """A size with its label."""
        outcome = trained.outcome
        if outcome.stopped:
            details["stopped"] = outcome.stopped
        details |= {"distinct_tokens": outcome.distinct, "losses": list(outcome.losses)}
        return Member(name, share, trained.factors, outcome.tokens, outcome.in_words(), details)
