"""Blockwise passes over sets of windows: calibrate, compress and propagate one decoder block after another.

The hidden states of all windows are stored, in memory or on disk, and the model's blocks are applied to them in turn.
Windows pass through a block in batches of a bounded number of tokens, so that the memory needed depends on the
requested windows and never on the model's maximum context.
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
from copal_core.system.torch_settings import exact_products

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}
# Totals start afresh after this many tokens and are then added in order: this limits the rounding of float32 sums
# over long texts, and a calibration gives the same bits when its stretches are distributed to several workers.
TOKENS_PER_STRETCH = 16384


class HiddenStates:
    """Hidden states of several sets of windows (one per domain) between two decoder blocks.

    Args:
        backbone: embeds the tokens.
        sets: one (windows, length) int64 tensor of token ids per domain.
    """

    def __init__(self, backbone: Backbone, sets: Sequence[Tensor]) -> None:
        self.device = backbone.device
        self._arguments: dict[tuple[int, str], dict[str, Any]] = {}
        batches = [windows.split(_windows_in_batch(windows, self.device.type)) for windows in sets]
        for windows in sets:
            key = (windows.shape[1], str(self.device))
            if key not in self._arguments:
                self._arguments[key] = backbone.block_arguments(windows.shape[1])
        hidden = backbone.config.hidden_size
        shapes = [(*batch.shape, hidden) for parts in batches for batch in parts]
        self.activations = Activations(shapes, backbone.dtype, self.device)
        # each batch (windows, length, hidden)
        self.sets = [[self.activations.store(backbone.embed(batch)) for batch in parts] for parts in batches]

    @torch.no_grad()
    def advance(self, block: nn.Module) -> None:
        """Replace the hidden states by the block's outputs."""
        for batches in self.sets:
            for index, hidden in enumerate(
                batches
            ):  # one by one, so that never two copies of all are in memory
                batches[index] = self.activations.replace(hidden, self._forward(block, hidden))

    @torch.no_grad()
    def through(self, block: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
        """Return the block's outputs for other batches of windows of the same length; this object is unchanged."""
        return [self._forward(block, hidden) for hidden in batches]

    @torch.no_grad()
    def calibrate(
        self, block: nn.Module, statistics: Sequence[Statistic], advance: bool
    ) -> list[BlockStatistics]:
        """Gather statistics of `block` for each set of windows.

        Args:
            block: a decoder block.
            statistics: to gather.
            advance: also replace the hidden states by the outputs, so that dense propagation needs no second pass.

        Returns:
            The statistics of each set, in order.
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
                        self.activations.release(hidden)
            total = added(total, gathered)
        return total or BlockStatistics()

    def batches(self, number: int) -> Iterator[Tensor]:
        """Yield the hidden states of set `number` in batches, each (windows, length, hidden)."""
        for batch in self.sets[number]:
            yield batch
            self.activations.release(batch)

    def _forward(self, block: nn.Module, hidden: Tensor) -> Tensor:
        device = next(block.parameters()).device
        output = block(hidden.to(device), **self._arguments_on(hidden.shape[1], device))
        return output[0] if isinstance(output, tuple) else output

    def _arguments_on(self, length: int, device: torch.device) -> dict[str, Any]:
        """Return the block's call arguments on its own device; blocks of one model may be on several devices."""
        key = (length, str(device))
        if key not in self._arguments:
            recorded = self._arguments[length, str(self.device)]
            self._arguments[key] = {name: _moved(value, device) for name, value in recorded.items()}
        return self._arguments[key]


def stretches(windows: Tensor, device: str) -> tuple[Tensor, ...]:
    """Split windows (count, length) into the stretches over which totals are gathered separately, in order."""
    in_batch = _windows_in_batch(windows, device)
    return windows.split(in_batch * max(1, TOKENS_PER_STRETCH // (in_batch * windows.shape[1])))


def added(total: BlockStatistics | None, stretch: BlockStatistics) -> BlockStatistics:
    """Add the statistics of a stretch to `total` in place, and return the sum."""
    if total is None:
        return stretch
    for name, group in total.groups.items():
        other = stretch.groups[name]
        group.tokens += other.tokens
        for statistic, values in group.totals.items():
            values += other.require(statistic)
    return total


def _windows_in_batch(windows: Tensor, device: str) -> int:
    return max(1, TOKENS_PER_BATCH[device] // windows.shape[1])


def _batches_in_stretch(batch: Tensor) -> int:
    """Return how many batches shaped like `batch`, (windows, length, ...), make up a stretch."""
    return max(1, TOKENS_PER_STRETCH // (batch.shape[0] * batch.shape[1]))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(_moved(item, device) for item in value) if isinstance(value, tuple | list) else value
