"""One decoder block after another over a set of windows: calibrate, compress, propagate.

Hidden states of all windows are kept, in memory or on disk; the model's blocks visit them in turn. Windows
go through a block in batches of a bounded number of tokens, so that the memory needed depends on the
windows asked for and never on the model's maximum context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone
from copal_core.statistics.accumulators import BlockStatistics, Statistic
from copal_core.statistics.activations import Activations
from copal_core.statistics.capture import InputsSeen, capture
from copal_core.system.precision import exact_products

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}
# Totals are gathered anew over so many tokens and then added, in order: float32 sums stay exact over long texts,
# and a calibration gives the same bits when its stretches are given to several workers.
TOKENS_PER_STRETCH = 16384


class HiddenStates:
    """The hidden states of several sets of windows (one a domain) between two decoder blocks."""

    def __init__(self, backbone: Backbone, sets: Sequence[Tensor]) -> None:
        """sets: token windows (windows, length) int64, one tensor a domain."""
        self.device = backbone.device
        self._arguments: dict[tuple[int, str], dict[str, Any]] = {}
        batches = [windows.split(_windows_in_batch(windows, self.device.type)) for windows in sets]
        for windows in sets:
            place = (windows.shape[1], str(self.device))
            if place not in self._arguments:
                self._arguments[place] = backbone.block_arguments(windows.shape[1])
        hidden = backbone.config.hidden_size
        shapes = [(*batch.shape, hidden) for parts in batches for batch in parts]
        self.activations = Activations(shapes, backbone.dtype, self.device)
        # each batch (windows, length, hidden)
        self.sets = [[self.activations.place(backbone.embed(batch)) for batch in parts] for parts in batches]

    @torch.no_grad()
    def advance(self, block: nn.Module) -> None:
        """Replace the hidden states by the block's outputs."""
        for batches in self.sets:
            for index, hidden in enumerate(batches):  # one by one: two copies of all would be held otherwise
                batches[index] = self.activations.replace(hidden, self._forward(block, hidden))

    @torch.no_grad()
    def through(self, block: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
        """The block's outputs for other batches of windows of the same length; this object stays as it is."""
        return [self._forward(block, hidden) for hidden in batches]

    @torch.no_grad()
    def calibrate(
        self, block: nn.Module, statistics: Sequence[Statistic], advance: bool
    ) -> list[BlockStatistics]:
        """Statistics of `block`, one for each set of windows.

        advance: also replace the hidden states by the outputs (dense propagation needs no second pass).
        """
        return [self._calibrate_set(block, statistics, advance, batches) for batches in self.sets]

    def _calibrate_set(
        self, block: nn.Module, statistics: Sequence[Statistic], advance: bool, batches: list[Tensor]
    ) -> BlockStatistics:
        total: BlockStatistics | None = None
        per_stretch = _batches_in_stretch(batches[0])
        for start in range(0, len(batches), per_stretch):
            with capture(block, statistics, stop_at_last_input=not advance) as gathered, exact_products():
                for index in range(start, min(start + per_stretch, len(batches))):
                    hidden = batches[index]
                    try:
                        output = self._forward(block, hidden)
                    except InputsSeen:
                        output = None
                    if advance and output is not None:
                        batches[index] = self.activations.replace(hidden, output)
                    else:
                        self.activations.settle(hidden)
            total = added(total, gathered)
        return total or BlockStatistics()

    def batches(self, number: int) -> Iterator[Tensor]:
        """The hidden states (windows, length, hidden) of set `number`, batch by batch."""
        for batch in self.sets[number]:
            yield batch
            self.activations.settle(batch)

    def _forward(self, block: nn.Module, hidden: Tensor) -> Tensor:
        device = next(block.parameters()).device
        output = block(hidden.to(device), **self._arguments_on(hidden.shape[1], device))
        return output[0] if isinstance(output, tuple) else output

    def _arguments_on(self, length: int, device: torch.device) -> dict[str, Any]:
        """What the block is called with, where it computes; blocks of one model may lie on several devices."""
        place = (length, str(device))
        if place not in self._arguments:
            first = self._arguments[length, str(self.device)]
            self._arguments[place] = {name: _moved(value, device) for name, value in first.items()}
        return self._arguments[place]


def stretches(windows: Tensor, device: str) -> tuple[Tensor, ...]:
    """The windows (count, length) over which totals are gathered by themselves, in order."""
    in_batch = _windows_in_batch(windows, device)
    return windows.split(in_batch * max(1, TOKENS_PER_STRETCH // (in_batch * windows.shape[1])))


def added(total: BlockStatistics | None, found: BlockStatistics) -> BlockStatistics:
    """`found` added to `total` in place."""
    if total is None:
        return found
    for name, group in total.groups.items():
        other = found.groups[name]
        group.tokens += other.tokens
        for statistic, values in group.totals.items():
            values += other.require(statistic)
    return total


def _windows_in_batch(windows: Tensor, device: str) -> int:
    return max(1, TOKENS_PER_BATCH[device] // windows.shape[1])


def _batches_in_stretch(batch: Tensor) -> int:
    """batch: the first one, (windows, length, ...)."""
    return max(1, TOKENS_PER_STRETCH // (batch.shape[0] * batch.shape[1]))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(_moved(one, device) for one in value) if isinstance(value, tuple | list) else value
