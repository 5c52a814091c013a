"""Which of two redundant neurons goes, pair after pair, until enough are gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from copal_core.neurons._information import correlations, deviations

_ROWS_AT_ONCE = 1024
_PAIRS_AT_ONCE = 65_536


@dataclass
class Pairs:
    """The pairs of one block's neurons.

    gram: (d, d) of normal scores. scores: (d,), the lower of two goes; ties: the later one. least: correlation that
    a pair must exceed to be redundant. alive: (d,) bool, neurons that are still there.
    """

    gram: Tensor
    scores: Tensor
    least: float
    alive: Tensor

    def __post_init__(self) -> None:
        self._deviation = deviations(self.gram)

    def greedy(self) -> Iterator[tuple[int, int, float]]:
        """(removed, twin, correlation) of the most redundant pair first, while there is one.

        Each neuron's best partner is remembered, and looked for again when that partner goes.
        """
        neurons = len(self.alive)
        best = torch.empty(neurons, device=self.gram.device)
        partner = torch.empty(neurons, dtype=torch.long, device=self.gram.device)
        for start in range(0, neurons, _ROWS_AT_ONCE):
            self._look(torch.arange(start, min(neurons, start + _ROWS_AT_ONCE)), best, partner)
        while True:
            first = int(best.argmax())
            correlation = float(best[first])
            if correlation <= self.least:
                return
            gone, twin = self._lower(first, int(partner[first]))
            self.alive[gone] = False
            best[gone] = -1.0
            yield gone, twin, correlation
            widowed = ((partner == gone) & self.alive).nonzero()[:, 0]
            for rows in widowed.split(_ROWS_AT_ONCE):
                self._look(rows, best, partner)

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

    def _look(self, rows: Tensor, best: Tensor, partner: Tensor) -> None:
        """Find the best living partner of each of `rows`."""
        rows = rows.to(self.gram.device)
        found = correlations(self.gram, rows, self._deviation)  # (rows, d)
        found[:, ~self.alive] = -1.0
        found[torch.arange(len(rows), device=rows.device), rows] = -1.0
        best[rows], partner[rows] = found.max(dim=1)
        best[rows[~self.alive[rows]]] = -1.0

    def _lower(self, one: int, other: int) -> tuple[int, int]:
        """(which goes, which stays)."""
        first, second = sorted((one, other))
        return (first, second) if self.scores[first] < self.scores[second] else (second, first)
