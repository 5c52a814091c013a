"""One step of one method: calibrate on the step's text, decide every block's mask, remember.

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
from copal_core.config import Method
from copal_core.criteria._base import Criterion
from copal_core.lowrank._base import Decomposition
from copal_core.neurons._base import NeuronSelector
from copal_core.pruning import PrunedBlock, Weights, mean_scores, prune_block
from copal_core.recording import BlockRecorder
from copal_core.records import BlockRecord, Record, SecondsRecord
from copal_core.statistics.accumulators import BlockStatistics
from copal_core.statistics.blockwise import HiddenStates
from copal_core.store import RunStore
from copal_core.strategies._base import Strategy
from copal_core.threads import one_thread
from copal_core.variants import arrays_of, dense_weights, pruned_weights, updated_values


class Compressed(Protocol):
    """One block after compression: projection -> (out, in)."""

    weights: Weights


@dataclass
class Step:
    """One method at one step.

    windows: calibration windows (count, length) of every domain, in the order of the steps.
    visit: called with a block's index when it is finished; may raise Cancelled.
    """

    store: RunStore
    backbone: Backbone
    windows: Sequence[Tensor]
    method: Method
    criterion: Criterion | Decomposition | NeuronSelector
    strategy: Strategy
    step: int
    visit: Callable[[int], None]
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def run(self) -> None:
        """Prune all blocks that are not finished yet."""
        finished = self.store.finished_blocks(str(self.method), self.step)
        if finished >= self.backbone.depth:
            return
        states = None
        if self.criterion.statistics():
            states = HiddenStates(
                self.backbone, [self.windows[d - 1] for d in self.strategy.domains(self.step)]
            )
        for index in range(self.backbone.depth):
            if index < finished and states is None:
                continue
            with self.backbone.block(index) as block:
                if index < finished:
                    self._pass_through(index, block, states)
                    continue
                self._prune(index, block, states)
            self.visit(index)

    @property
    def _propagates_pruned(self) -> bool:
        return self.store.config.protocol.propagate == "pruned"

    def _base(self, index: int, block: nn.Module) -> Weights:
        """The weights that are scored: dense, or those of the step before."""
        if self.strategy.starts_from_pruned and self.step > 1:
            return pruned_weights(self.store, str(self.method), self.step - 1, index, block)
        return dense_weights(block)

    def _pass_through(self, index: int, block: nn.Module, states: HiddenStates | None) -> None:
        """Bring the hidden states past a block that an earlier process finished."""
        if states is None:
            return
        if self._propagates_pruned:
            weights = pruned_weights(self.store, str(self.method), self.step, index, block)
        else:
            weights = self._base(index, block)
        with swapped(block, weights):
            states.advance(block)

    def _prune(self, index: int, block: nn.Module, states: HiddenStates | None) -> None:
        with self._timed("load"):
            base, memory = self._base(index, block), self._memory(index)
        found = [BlockStatistics()]
        if states is not None:
            with self._timed("calibrate"), swapped(block, base):
                found = states.calibrate(
                    block, self.criterion.statistics(), advance=not self._propagates_pruned
                )
        with self._timed("select"):
            used = self.strategy.combine(memory, found)
            pruned = self._compress(index, base, used)
        if states is not None and self._propagates_pruned:
            with self._timed("propagate"), swapped(block, pruned.weights):
                states.advance(block)
        with self._timed("record"), one_thread():
            records = self._record(index, base, pruned, used, found[-1])
        records.append(BlockRecord(str(self.method), self.step, index))
        records += [SecondsRecord(str(self.method), self.step, index, p, s) for p, s in self._seconds.items()]
        self._seconds.clear()
        self.store.add(records)  # from here on the block counts as finished

    def _memory(self, index: int) -> BlockStatistics | None:
        if not self.strategy.remembers or self.step == 1 or not self.criterion.statistics():
            return None
        arrays = self.store.arrays("memory", str(self.method), self.step - 1, index)
        device = self.backbone.device
        return BlockStatistics.from_tensors({n: torch.from_numpy(a).to(device) for n, a in arrays.items()})

    def _compress(self, index: int, base: Weights, used: BlockStatistics) -> Compressed:
        """The block's new weights by projection, and what is to be kept of how they came about."""
        return prune_block(self._as_criterion, base, used, self.store.config.structure)

    def _record(
        self, index: int, base: Weights, found: Compressed, used: BlockStatistics, newest: BlockStatistics
    ) -> list[Record]:
        """Write what later steps need (masks, updated weights, memory), and measure the block.

        newest: statistics of this step's domain alone.
        """
        if not isinstance(found, PrunedBlock):
            raise TypeError("this step prunes")
        store, place, criterion = self.store, (str(self.method), self.step, index), self._as_criterion
        means = mean_scores(criterion, base, newest) if used is not newest else None
        store.save_masks(*place, arrays_of(found.kept))
        if criterion.updates_weights:
            store.save_arrays("weights", *place, arrays_of(updated_values(found.weights, found.kept)))
        self._remember(index, used)
        return BlockRecorder(store, self.backbone.config, *place).records(found, means)

    def _remember(self, index: int, used: BlockStatistics) -> None:
        place = (str(self.method), self.step, index)
        if self.strategy.remembers and self.criterion.statistics():
            self.store.save_arrays("memory", *place, arrays_of(used.to_tensors()))

    @property
    def _as_criterion(self) -> Criterion:
        if not isinstance(self.criterion, Criterion):
            raise TypeError(f"{self.criterion} is no criterion")
        return self.criterion

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[phase] += time.perf_counter() - started
