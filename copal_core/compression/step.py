"""One step of one method: calibrate on the step's text, compress every block, remember.

Blocks are pruned in order. Each is calibrated on the hidden states that reach it, its statistics are
combined with what the strategy remembers, its weights are scored, and the next block is calibrated on its
outputs: those of the pruned block (`pruned` propagation, as published code does) or those of the weights
that were scored (`dense`). A block whose records are in the store is not computed again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone, swapped
from copal_core.checkpoints.layout import GROUPS
from copal_core.compression.artifact import arrays_of, dense_weights
from copal_core.compression.pruning import Weights
from copal_core.compression.restore import artifact_of, pruned_weights
from copal_core.config import Method
from copal_core.methods.build import Compressor
from copal_core.methods.strategy import Strategy
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics, Statistic
from copal_core.statistics.blockwise import HiddenStates
from copal_core.store.records import BlockRecord, SecondsRecord
from copal_core.store.run_store import RunStore


class States(Protocol):
    """Hidden states of several sets of windows between two blocks, as `HiddenStates` keeps them."""

    def advance(self, block: nn.Module) -> None:
        """Replace them by the block's outputs."""

    def calibrate(
        self, block: nn.Module, statistics: Sequence[Statistic], advance: bool
    ) -> list[BlockStatistics]:
        """Statistics of the block, one for each set."""


HoldStates = Callable[[Backbone, Sequence[Tensor]], States]  # windows (count, length), one tensor a set


@dataclass
class Step:
    """One method at one step.

    windows: calibration windows (count, length) of every domain, in the order of the steps.
    visit: called with a block's index when it is finished; may raise Cancelled.
    states: who holds the hidden states; `cluster.calibration` has another.
    """

    store: RunStore
    backbone: Backbone
    windows: Sequence[Tensor]
    method: Method
    compressor: Compressor
    strategy: Strategy
    step: int
    visit: Callable[[int], None]
    states: HoldStates = HiddenStates
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def run(self) -> None:
        """Compress all blocks that are not finished yet."""
        finished = self.store.finished_blocks(str(self.method), self.step)
        if finished >= self.backbone.depth:
            return
        states = None
        if self.compressor.statistics():
            states = self.states(
                self.backbone, [self.windows[d - 1] for d in self.strategy.domains(self.step)]
            )
        for index in range(self.backbone.depth):
            if index < finished and states is None:
                continue
            with self.backbone.block(index) as block:
                if index < finished:
                    self._pass_through(index, block, states)
                    continue
                self._compress(index, block, states)
            self.visit(index)

    @property
    def _propagates_pruned(self) -> bool:
        return self.store.config.protocol.propagate == "pruned"

    @property
    def trains(self) -> bool:
        """Return True for a method that trains its factors once all blocks have some."""
        return self.compressor.training_tokens > 0

    def base(self, index: int, block: nn.Module) -> Weights:
        """Return the weights that are scored: dense, or those of the step before."""
        if self.strategy.starts_from_pruned and self.step > 1:
            return pruned_weights(self.store, str(self.method), self.step - 1, index, block)
        return dense_weights(block)

    def _pass_through(self, index: int, block: nn.Module, states: States | None) -> None:
        """Bring the hidden states past a block that an earlier process finished."""
        if states is None:
            return
        if self._propagates_pruned:
            weights = pruned_weights(self.store, str(self.method), self.step, index, block)
        else:
            weights = self.base(index, block)
        with swapped(block, weights):
            states.advance(block)

    def _compress(self, index: int, block: nn.Module, states: States | None) -> None:
        with self._timed("load"):
            base = self.base(index, block)
        found = [BlockStatistics()]
        if states is not None:
            with self._timed("calibrate"), swapped(block, base):
                found = states.calibrate(
                    block, self.compressor.statistics(), advance=not self._propagates_pruned
                )
        self.backbone.settle(index)
        artifact = artifact_of(str(self.method))(self, index)
        remembered = BlockStatistics()
        for group, names in GROUPS.items():  # so that only one group's scores are in memory
            newest, used = self._statistics(index, group, found)
            if (self.strategy.remembers or self.trains) and self.compressor.statistics():
                remembered.groups[group] = used
            artifact.add({name: base[name] for name in names}, used, newest, self._timed)
            self.backbone.settle(index)
        with self._timed("record"):
            records = artifact.finish()
            if remembered.groups:
                place = (str(self.method), self.step, index)
                self.store.save_arrays("memory", *place, arrays_of(remembered.to_tensors()))
        del remembered, found, used, newest
        if states is not None and self._propagates_pruned:
            with self._timed("propagate"), swapped(block, artifact.weights(base)):
                states.advance(block)
        records.append(BlockRecord(str(self.method), self.step, index))
        records += [SecondsRecord(str(self.method), self.step, index, p, s) for p, s in self._seconds.items()]
        self._seconds.clear()
        self.store.add(records)  # from here on the block counts as finished

    def _statistics(
        self, index: int, group: str, found: Sequence[BlockStatistics]
    ) -> tuple[GroupStatistics, GroupStatistics]:
        """Return one group's statistics of this step's domain alone, and those that the strategy gives.

        `found` hands its totals over: their memory is free once the caller is done with them.
        """
        if not self.compressor.statistics():
            return (nothing := GroupStatistics()), nothing
        parts = [BlockStatistics({group: one.groups.pop(group)}) for one in found]
        with self._timed("load"):
            totals = parts[-1].groups[group].totals.values()
            device = next((total.device for total in totals), self.backbone.device)
            memory = self._memory(index, group, device)
        with self._timed("select"):
            return parts[-1].groups[group], self.strategy.combine(memory, parts).groups[group]

    def _memory(self, index: int, group: str, device: torch.device) -> BlockStatistics | None:
        if not self.strategy.remembers or self.step == 1:
            return None
        names = [f"{group}.{name}" for name in ("tokens", *(s.name for s in self.compressor.statistics()))]
        arrays = self.store.arrays("memory", str(self.method), self.step - 1, index, names)
        return BlockStatistics.from_tensors({n: torch.from_numpy(a).to(device) for n, a in arrays.items()})

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[phase] += time.perf_counter() - started
