"""A checkpoint on the bench of a method that trains: its model, its layers with their statistics, its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from copal_core.methods.decomposition import Factors
from copal_core.methods.factored.modules import factored_modules, replaced
from copal_core.methods.factored.training import Budget, Outcome, Report, train
from copal_core.statistics.accumulators import GroupStatistics

Layers = Callable[[str], Iterator[tuple[str, Tensor, GroupStatistics]]]
Factorise = Callable[[Tensor, GroupStatistics, Factors | None], Factors]


@dataclass(frozen=True)
class Trained:
    """Factors by module name, and how they were trained.

    arrays: module name -> name -> tensor, for the figures of a method (the scales of Basel's bases).
    """

    factors: dict[str, Factors]
    outcome: Outcome
    arrays: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Workshop:
    """All that a method may use that trains the layers of a checkpoint together.

    model: the whole model, float32. layers: given what is being done, yields module name, weight (out, in) float32
    and the statistics of its input for every layer that becomes factors. windows: (count, length) int64, the only
    text that is trained on. report: hears of every layer and training step, and may raise Cancelled.
    """

    model: nn.Module
    layers: Layers
    windows: Tensor
    seed: int = 0
    report: Report = lambda label, tokens: None

    def each(self, factorise: Factorise, before: Mapping[str, Factors], label: str) -> dict[str, Factors]:
        """Apply `factorise` to every layer, with the factors it had `before` if any. Factors in float32."""
        found = {}
        for name, weight, given in self.layers(label):
            made = factorise(weight, given, before.get(name))
            found[name] = replace(made, left=made.left.float(), right=made.right.float())
        return found

    def train(self, factors: Mapping[str, Factors], tokens: int, rate: float, label: str) -> Trained:
        """Go on with pretraining of all factors for `tokens` tokens; nothing is trained for 0."""
        modules = factored_modules(self.model, factors)
        learning = [p for module in modules.values() for p in (module.left, module.right)]
        with replaced(self.model, modules):
            outcome = self.fit([(learning, rate)], tokens, label)
        done = {
            name: replace(factors[name], left=module.left.detach(), right=module.right.detach())
            for name, module in modules.items()
        }
        return Trained(done, outcome)

    def fit(
        self, parameters: Sequence[tuple[Sequence[nn.Parameter], float]], tokens: int, label: str
    ) -> Outcome:
        """Train groups of parameters, each with its rate, on this text with this seed; see `training.train`."""
        return train(self.model, parameters, self.windows, Budget(tokens, label, self.seed), self.report)
