"""One large calibration over several workers, bit for bit what one process of as many threads computes.

Totals are gathered anew over every so many tokens and added in order (`statistics.blockwise`); each worker holds
the hidden states of some of those stretches, and the driver adds their totals in the same order. Masks are decided
by the driver, which sends every block's weights to the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone, linears, swapped
from copal_core.experiment.cluster.connection import Cluster
from copal_core.statistics.accumulators import BlockStatistics, Statistic
from copal_core.statistics.blockwise import HiddenStates, added, stretches

Weights = dict[str, Tensor]


def sharded(ray: Any, cluster: Cluster) -> Callable[[Backbone, Sequence[Tensor]], ShardedStates]:
    """In place of `HiddenStates` in a run."""
    return lambda backbone, sets: ShardedStates(ray, cluster, backbone, sets)


class ShardedStates:
    """The hidden states of several sets of windows, held by workers; offers what a step asks of `HiddenStates`."""

    def __init__(self, ray: Any, cluster: Cluster, backbone: Backbone, sets: Sequence[Tensor]) -> None:
        self._ray, self._sets = ray, len(sets)
        parts = [
            (number, part)
            for number, windows in enumerate(sets)
            for part in stretches(windows, backbone.device.type)
        ]
        self.stretches = len(parts)
        count = min(
            len(parts), cluster.workers or int(ray.cluster_resources().get("CPU", 1)) // cluster.threads or 1
        )
        self._places = [(number, index % count, index // count) for index, (number, _) in enumerate(parts)]
        worker = ray.remote(num_cpus=cluster.threads)(_Worker)
        dtype = str(backbone.dtype).removeprefix("torch.")
        self.workers = [
            worker.remote(
                str(backbone.folder), backbone.device.type, dtype, cluster.threads,
                [part for index, (_, part) in enumerate(parts) if index % count == number],
            )
            for number in range(count)
        ]  # fmt: skip

    def advance(self, block: nn.Module) -> None:
        """Replace the hidden states by the block's outputs."""
        weights = self._ray.put(_weights(block))
        self._ray.get([worker.advance.remote(weights) for worker in self.workers])

    def calibrate(
        self, block: nn.Module, statistics: Sequence[Statistic], advance: bool
    ) -> list[BlockStatistics]:
        """As `HiddenStates.calibrate`."""
        weights = self._ray.put(_weights(block))
        asked = [worker.calibrate.remote(weights, list(statistics), advance) for worker in self.workers]
        found: list[list[BlockStatistics]] = self._ray.get(asked)
        device = next(block.parameters()).device
        totals: list[BlockStatistics | None] = [None] * self._sets
        for number, worker, place in self._places:  # in the order of the text, whoever was first
            totals[number] = added(totals[number], _on(device, found[worker][place]))
        return [total or BlockStatistics() for total in totals]


class _Worker:
    """Holds the hidden states of some stretches of text, and brings them through one block after another."""

    def __init__(self, folder: str, device: str, dtype: str, threads: int, parts: list[Tensor]) -> None:
        torch.set_num_threads(threads)
        self._backbone = Backbone(Path(folder), device, dtype)
        self._states = HiddenStates(self._backbone, parts)
        self._block = 0

    def advance(self, weights: Weights) -> None:
        with self._backbone.block(self._block) as block, swapped(block, weights):
            self._states.advance(block)
        self._block += 1

    def calibrate(
        self, weights: Weights, statistics: list[Statistic], advance: bool
    ) -> list[BlockStatistics]:
        with self._backbone.block(self._block) as block, swapped(block, weights):
            found = self._states.calibrate(block, statistics, advance)
        self._block += advance
        return [_on(torch.device("cpu"), one) for one in found]


def _weights(block: nn.Module) -> Weights:
    """projection -> (out, in) as the block computes now, on the CPU."""
    return {name: layer.weight.detach().cpu() for name, layer in linears(block).items()}


def _on(device: torch.device, found: BlockStatistics) -> BlockStatistics:
    # what Ray hands over cannot be written to, and totals are added in place: hence a copy
    return BlockStatistics.from_tensors(
        {name: total.to(device, copy=True) for name, total in found.to_tensors().items()}
    )
