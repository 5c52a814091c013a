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
from copal_core.precision import exact_products
from copal_core.statistics.accumulators import BlockStatistics, Statistic
from copal_core.statistics.activations import Activations
from copal_core.statistics.capture import InputsSeen, capture

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}


class HiddenStates:
    """The hidden states of several sets of windows (one a domain) between two decoder blocks."""

    def __init__(self, backbone: Backbone, sets: Sequence[Tensor]) -> None:
        """sets: token windows (windows, length) int64, one tensor a domain."""
        self.device = backbone.device
        per_batch = TOKENS_PER_BATCH[backbone.device.type]
        self._arguments: dict[tuple[int, str], dict[str, Any]] = {}
        batches = [windows.split(max(1, per_batch // windows.shape[1])) for windows in sets]
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
        found = []
        for batches in self.sets:
            with (
                capture(block, statistics, stop_at_last_input=not advance) as gathered,
                exact_products(),
            ):
                for index, hidden in enumerate(batches):
                    try:
                        output = self._forward(block, hidden)
                    except InputsSeen:
                        output = None
                    if advance and output is not None:
                        batches[index] = self.activations.replace(hidden, output)
                    else:
                        self.activations.settle(hidden)
            found.append(gathered)
        return found

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


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(_moved(one, device) for one in value) if isinstance(value, tuple | list) else value
