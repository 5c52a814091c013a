"""Removal of one neuron from each redundant pair, pair by pair."""

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
    """Pairs of one block's neurons.

    Attributes:
        gram: (d, d), Gram matrix of the normal scores.
        scores: (d,) >= 0; of two neurons the one with the lower score is removed, of equal ones the later.
        least: correlation that a pair must exceed to be redundant.
        alive: (d,) bool, neurons not removed yet.
    """

    gram: Tensor
    scores: Tensor
    least: float
    alive: Tensor

    def __post_init__(self) -> None:
        self._deviation = deviations(self.gram)
        order = self.scores.sort(descending=True, stable=True).indices
        self._rank = torch.empty_like(order)  # 0 is the best: never the one removed from a pair
        self._rank[order] = torch.arange(len(order), device=order.device)

    def greedy(self, weigh: bool) -> Iterator[tuple[int, int, float]]:
        """Yield (removed, twin, correlation), the most redundant pair first, until none is redundant.

        Args:
            weigh: the most redundant pair leaves least of its lower neuron's squared score unexplained,
                score² e^(−2I) = score² (1 − ρ²); otherwise it is the pair with the largest I.
        """
        neurons = len(self.alive)
        best = torch.zeros(neurons, device=self.gram.device)
        partner = torch.zeros(neurons, dtype=torch.long, device=self.gram.device)
        # each neuron remembers its best partner among those that outrank it ...
        self._find_partners(self.alive.nonzero()[:, 0], best, partner)
        while True:
            redundancy = self._redundancy(best, weigh)
            gone = int(redundancy.argmax())
            if float(redundancy[gone]) == -torch.inf:
                return
            yield gone, int(partner[gone]), float(best[gone])
            # ... and searches again only when that partner is removed
            self.alive[gone] = False
            self._find_partners(((partner == gone) & self.alive).nonzero()[:, 0], best, partner)

    def _redundancy(self, best: Tensor, weigh: bool) -> Tensor:
        """Return the redundancy of each neuron's best pair, (d,): −ln(1 − ρ²), less ln score² if weighed.

        It is minus infinity for neurons that are removed already or in no redundant pair.
        """
        unexplained = torch.log1p(-best.double().square().clamp(max=1 - 1e-7))
        redundancy = -unexplained - (2 * self.scores.double().log() if weigh else 0.0)
        return torch.where(self.alive & (best > self.least), redundancy, -torch.inf)

    def random(self, generator: torch.Generator) -> Iterator[tuple[int, int, float]]:
        """Yield (removed, twin, correlation) of redundant pairs in random order, as the paper visits them."""
        while True:
            pairs = torch.randint(len(self.alive), (2, _PAIRS_AT_ONCE), generator=generator)
            any_removed = False
            for gone, twin, correlation in self._visit(pairs):
                any_removed = True
                yield gone, twin, correlation
            if not any_removed:  # few redundant pairs remain, if any: list them instead of drawing
                yield from self._visit(self._shuffled(generator))
                return

    def _visit(self, pairs: Tensor) -> Iterator[tuple[int, int, float]]:
        """Remove one neuron of each redundant pair in `pairs` (2, n), in order; skip pairs with a removed neuron."""
        k, m = pairs.to(self.gram.device)
        correlation = self.gram[k, m].abs() / (self._deviation[k] * self._deviation[m])
        redundant = (correlation > self.least) & (k != m)
        candidates = (column[redundant].tolist() for column in (k, m, correlation))
        for first, second, correlation in zip(*candidates, strict=True):
            if self.alive[first] and self.alive[second]:
                gone, twin = self._lower(first, second)
                self.alive[gone] = False
                yield gone, twin, min(correlation, 1.0)

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        """Return every remaining redundant pair in random order, (2, n)."""
        living = self.alive.nonzero()[:, 0]
        listed = []
        for rows in living.split(_ROWS_AT_ONCE):
            redundant = correlations(self.gram, rows, self._deviation)[:, living] > self.least
            row, column = redundant.nonzero(as_tuple=True)
            pair = torch.stack([rows[row], living[column]])
            listed.append(pair[:, pair[0] < pair[1]])
        pairs = torch.cat(listed, dim=1).cpu()
        return pairs[:, torch.randperm(pairs.shape[1], generator=generator)]

    def _find_partners(self, neurons: Tensor, best: Tensor, partner: Tensor) -> None:
        """Update the best living partner of each of `neurons` among those that outrank it; correlation 0 for none."""
        for rows in neurons.split(_ROWS_AT_ONCE):
            correlation = correlations(self.gram, rows, self._deviation)  # (rows, d)
            correlation *= self.alive & (self._rank < self._rank[rows][:, None])
            best[rows], partner[rows] = correlation.max(dim=1)

    def _lower(self, first: int, second: int) -> tuple[int, int]:
        """Return (removed, twin): the lower-ranked neuron is removed."""
        return (first, second) if self._rank[first] > self._rank[second] else (second, first)
