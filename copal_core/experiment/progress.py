"""How far a run is, and how long the rest takes, from the cost of its parts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from copal_core.config import Method, RunConfig
from copal_core.methods.facts import facts_of
from copal_core.methods.strategies import STRATEGIES

# of a token that is trained on: forward, backward and the head, in forward passes of the blocks
TRAINING_COST = 5.0
# the time left is told once this share of the whole, or these seconds of work, have shown the pace
_SHARE_TO_TELL, _SECONDS_TO_TELL, _SECONDS_AT_LEAST = 0.05, 15.0, 1.0


def step_cost(config: RunConfig, method: Method, step: int) -> tuple[float, float]:
    """Return the cost of one step, in tokens of forward passes: (calibrate and compress, evaluate)."""
    tokens = config.protocol.calibration.tokens * domains_at_once(method, step)
    return facts_of(method.name).cost * tokens, evaluation_cost(config)


def domains_at_once(method: Method, step: int) -> int:
    """Return of how many domains the text is calibrated on at `step`."""
    return len(STRATEGIES.get(method.strategy)().domains(step))


def training_cost(method: Method) -> float:
    """Return the cost of training one step's factors, in tokens through the blocks; 0 for no training."""
    return TRAINING_COST * facts_of(method.name).tokens_trained(method.options)


def evaluation_cost(config: RunConfig) -> float:
    """Return the cost of evaluating one model on every domain, in tokens; the head's share included."""
    return 1.3 * config.protocol.evaluation.tokens * len(config.domains)


def total_cost(config: RunConfig) -> float:
    """Return the cost of the whole run, in tokens through the blocks."""
    return evaluation_cost(config) + sum(
        sum(step_cost(config, method, step)) + training_cost(method) for method, step in steps(config)
    )


def steps(config: RunConfig) -> Iterator[tuple[Method, int]]:
    """Yield (method, step) in the order in which a run computes them."""
    for step in range(config.first_step, len(config.domains) + 1):
        for method in config.methods:
            yield method, step


class Meter:
    """Adds up the cost of what is done; the time left follows from the pace of this process.

    The first piece of work only starts the clock: what came before it (opening the checkpoint, drawing windows) has
    no cost, and counting its seconds would make a run of half a minute look like one of half an hour.
    """

    def __init__(self, total: float) -> None:
        self._total = max(total, 1.0)
        self._done = 0.0
        self._skipped = 0.0
        self._began: float | None = None  # when the first piece of work ended, and what it cost
        self._before = 0.0
        self._told = 0.0  # when the time left was last told
        self._left: float | None = None

    def skip(self, cost: float) -> None:
        """Count work that an earlier process did."""
        self._skipped += cost

    def add(self, cost: float) -> None:
        """Count work that has just been done."""
        now = time.perf_counter()
        self._done += cost
        if self._began is None:
            self._began, self._before = now, self._done
        self._left, self._told = self._estimate(now), now

    @property
    def share(self) -> float:
        return min(1.0, (self._done + self._skipped) / self._total)

    @property
    def seconds_left(self) -> float | None:
        """None until enough is done to tell."""
        return self._left

    def _estimate(self, now: float) -> float | None:
        """Estimate the seconds left at the pace so far; it never grows by more than the time since it was told."""
        elapsed, paced = now - (self._began or now), self._done - self._before
        enough = paced >= _SHARE_TO_TELL * self._total or elapsed >= _SECONDS_TO_TELL
        if not (enough and paced > 0 and elapsed >= _SECONDS_AT_LEAST):
            return self._left
        left = elapsed / paced * max(0.0, self._total - self._done - self._skipped)
        return left if self._left is None else min(left, self._left + now - self._told)
