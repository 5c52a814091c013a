"""Ranking of parts by what restoring them returned, window by window, and the next to measure, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copal_core.analysis.diagnosis.attribution import Losses

KINDS = ("block", "projection", "layer")


@dataclass
class Tally:
    """Sums over the predicted tokens of each window, in nats.

    parts: name -> (sum of what was returned, sum of its squares), one pair for each of the first windows.
    """

    predicted: int  # tokens of one window
    final: list[float] = field(default_factory=list)
    earlier: list[float] = field(default_factory=list)
    parts: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, first: int, losses: Losses) -> None:
        """Add windows `first`, `first` + 1, ... ; those that are known are left as they are."""
        for row in range(losses.final.shape[0]):
            window = first + row
            if window == len(self.final):
                self.final.append(float(losses.final[row].double().sum()))
                self.earlier.append(float(losses.earlier[row].double().sum()))
            for name, found in losses.parts.items():
                seen = self.parts.setdefault(name, [])
                if window == len(seen):
                    returned = (losses.final[row] - found[row]).double()
                    seen.append((float(returned.sum()), float(returned.square().sum())))

    @property
    def forgotten(self) -> float:
        """Nats a token that the final model loses against the earlier one, over all windows measured."""
        return self._forgotten(len(self.final))

    def _forgotten(self, windows: int) -> float:
        lost = sum(self.final[:windows]) - sum(self.earlier[:windows])
        return lost / (windows * self.predicted) if windows else 0.0

    def ranking(self) -> list[Returned]:
        """Every part that was measured, the one that returns most first."""
        found = [self._returned(name, seen) for name, seen in self.parts.items() if seen]
        return sorted(found, key=lambda one: -one.nats)

    def _returned(self, name: str, seen: Sequence[tuple[float, float]]) -> Returned:
        tokens = len(seen) * self.predicted
        mean = sum(one for one, _ in seen) / tokens
        spread = max(0.0, sum(squares for _, squares in seen) / tokens - mean**2)
        forgotten = self._forgotten(len(seen))
        share = mean / forgotten if forgotten > 0 else None
        return Returned(name, mean, math.sqrt(spread / tokens), share, len(seen))


@dataclass(frozen=True)
class Returned:
    """The gain from restoring one part. nats: a token, positive is better; error: its standard error over the tokens.

    share: of what was forgotten on the same windows, None where nothing was.
    """

    part: str
    nats: float
    error: float
    share: float | None
    windows: int


@dataclass(frozen=True)
class Pass:
    """Some parts on windows `first` to `stop` - 1."""

    first: int
    stop: int
    parts: tuple[str, ...]


def next_pass(tally: Tally, names: Sequence[str], windows: int, at_once: int) -> Pass | None:
    """Choose what to measure next: every part on the first window, then the better half on twice as many, and so on.

    at_once: windows of one pass at most. None when the last round is done. Follows from the tally alone, so that an
    interrupted measurement goes on where it stopped.
    """
    for wanted, parts in _rounds(tally, names, windows):
        seen = {len(tally.parts.get(name, ())) for name in parts}
        behind = min(seen)
        if behind < wanted:
            late = tuple(name for name in parts if len(tally.parts.get(name, ())) == behind)
            return Pass(behind, min(wanted, behind + at_once), late)
    return None


def cost_left(tally: Tally, names: Sequence[str], windows: int) -> tuple[int, int]:
    """(done, total) part-windows of the whole plan."""
    sizes = [(wanted, _size(len(names), number)) for number, wanted in enumerate(_window_plan(windows))]
    total, before = 0, 0
    for wanted, size in sizes:
        total, before = total + (wanted - before) * size, wanted
    return min(total, sum(map(len, tally.parts.values()))), total


def _rounds(tally: Tally, names: Sequence[str], windows: int) -> Iterator[tuple[int, list[str]]]:
    """(windows that each part should have seen, the parts), round after round."""
    parts, before = list(names), 0
    for number, wanted in enumerate(_window_plan(windows)):
        if number:  # ranked on the windows that all of the round before have seen
            order = {name: sum(one for one, _ in tally.parts[name][:before]) for name in parts}
            parts = sorted(parts, key=lambda name: -order[name])[: _size(len(names), number)]
        yield wanted, parts
        before = wanted


def _window_plan(windows: int) -> list[int]:
    """1, 3, 7, 15 ... and all of them at the end."""
    plan = [1]
    while plan[-1] < windows:
        plan.append(min(windows, 2 * plan[-1] + 1))
    return plan


def _size(parts: int, round_number: int) -> int:
    """Half as many in every round, and never fewer than five."""
    return min(parts, max(5, math.ceil(parts / 2**round_number)))
