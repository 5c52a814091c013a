"""Which of two redundant neurons goes, pair after pair, until enough are gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from copal_core.methods.information import correlations, deviations

_ROWS_AT_ONCE = 1024
_PAIRS_AT_ONCE = 65_536


@dataclass
class Pairs:
    """The pairs of one block's neurons.

    gram: (d, d) of normal scores. scores: (d,) >= 0, the lower of two goes; of equals the later one. least:
    correlation that a pair must exceed to be redundant. alive: (d,) bool, neurons that are still there.
    """

    gram: Tensor
    scores: Tensor
    least: float
    alive: Tensor

    def __post_init__(self) -> None:
        self._deviation = deviations(self.gram)
        order = self.scores.sort(descending=True, stable=True).indices
        self._rank = torch.empty_like(order)  # 0: never the one to go
        self._rank[order] = torch.arange(len(order), device=order.device)

    def greedy(self, weigh: bool) -> Iterator[tuple[int, int, float]]:
        """(removed, twin, correlation) of the most redundant pair first, while there is one.

        weigh: most redundant is the pair that leaves least of its lower neuron's squared score unexplained,
        score² e^(−2I) = score² (1 − ρ²); otherwise the pair of the largest I. Each neuron remembers its best partner
        among those that outrank it, and looks again when that partner goes.
        """
        neurons = len(self.alive)
        best = torch.zeros(neurons, device=self.gram.device)
        partner = torch.zeros(neurons, dtype=torch.long, device=self.gram.device)
        self._look(self.alive.nonzero()[:, 0], best, partner)
        while True:
            worth = self._worth(best, weigh)
            gone = int(worth.argmax())
            if float(worth[gone]) == -torch.inf:
                return
            yield gone, int(partner[gone]), float(best[gone])
            self.alive[gone] = False
            self._look(((partner == gone) & self.alive).nonzero()[:, 0], best, partner)

    def _worth(self, best: Tensor, weigh: bool) -> Tensor:
        """(d,) how redundant each neuron's best pair is; minus infinity for those that do not go."""
        unexplained = torch.log1p(-best.double().square().clamp(max=1 - 1e-7))
        worth = -unexplained - (2 * self.scores.double().log() if weigh else 0.0)
        return torch.where(self.alive & (best > self.least), worth, -torch.inf)

    def random(self, generator: torch.Generator) -> Iterator[tuple[int, int, float]]:
        """(removed, twin, correlation) of redundant pairs in random order, as the paper visits them."""
        while True:
            pairs = torch.randint(len(self.alive), (2, _PAIRS_AT_ONCE), generator=generator)
            found = False
            for gone, twin, correlation in self._visit(pairs):
                found = True
                yield gone, twin, correlation
            if not found:  # few are left, if any: list them
                yield from self._visit(self._shuffled(generator))
                return

    def _visit(self, pairs: Tensor) -> Iterator[tuple[int, int, float]]:
        """Remove along `pairs` (2, n), in their order; pairs of which one is gone by then are passed over."""
        one, other = pairs.to(self.gram.device)
        found = self.gram[one, other].abs() / (self._deviation[one] * self._deviation[other])
        redundant = (found > self.least) & (one != other)
        candidates = (column[redundant].tolist() for column in (one, other, found))
        for first, second, correlation in zip(*candidates, strict=True):
            if self.alive[first] and self.alive[second]:
                gone, twin = self._lower(first, second)
                self.alive[gone] = False
                yield gone, twin, min(correlation, 1.0)

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        """(2, n) every redundant pair that is left, in random order."""
        living = self.alive.nonzero()[:, 0]
        listed = []
        for rows in living.split(_ROWS_AT_ONCE):
            found = correlations(self.gram, rows, self._deviation)[:, living] > self.least
            row, column = found.nonzero(as_tuple=True)
            pair = torch.stack([rows[row], living[column]])
            listed.append(pair[:, pair[0] < pair[1]])
        pairs = torch.cat(listed, dim=1).cpu()
        return pairs[:, torch.randperm(pairs.shape[1], generator=generator)]

    def _look(self, neurons: Tensor, best: Tensor, partner: Tensor) -> None:
        """Find the best living partner of each of `neurons` among those that outrank it; 0 for none."""
        for rows in neurons.split(_ROWS_AT_ONCE):
            found = correlations(self.gram, rows, self._deviation)  # (rows, d)
            found *= self.alive & (self._rank < self._rank[rows][:, None])
            best[rows], partner[rows] = found.max(dim=1)

    def _lower(self, one: int, other: int) -> tuple[int, int]:
        """(which goes, which stays)."""
        return (one, other) if self._rank[one] > self._rank[other] else (other, one)
