"""One decoder block after another over a set of windows: calibrate, compress, propagate.

Hidden states of all windows are kept; the model's blocks visit them in turn. Windows go through a block
in batches of a bounded number of tokens, so that the memory needed depends on the windows asked for and
never on the model's maximum context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone
from copal_core.statistics.accumulators import BlockStatistics, Statistic
from copal_core.statistics.capture import InputsSeen, capture

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}


class HiddenStates:
    """The hidden states of several sets of windows (one a domain) between two decoder blocks."""

    def __init__(self, backbone: Backbone, sets: Sequence[Tensor]) -> None:
        """sets: token windows (windows, length) int64, one tensor a domain."""
        self.device = backbone.device
        per_batch = TOKENS_PER_BATCH[backbone.device.type]
        self._arguments: dict[int, dict[str, Any]] = {}
        self.sets: list[list[Tensor]] = []  # each batch (windows, length, hidden)
        for windows in sets:
            length = windows.shape[1]
            if length not in self._arguments:
                self._arguments[length] = backbone.block_arguments(length)
            batches = windows.split(max(1, per_batch // length))
            self.sets.append([backbone.embed(batch) for batch in batches])

    @torch.no_grad()
    def advance(self, block: nn.Module) -> None:
        """Replace the hidden states by the block's outputs."""
        for batches in self.sets:
            for index, hidden in enumerate(batches):  # one by one: two copies of all would be held otherwise
                batches[index] = self._forward(block, hidden)

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
            with capture(block, statistics, stop_at_last_input=not advance) as gathered:
                for index, hidden in enumerate(batches):
                    try:
                        output = self._forward(block, hidden)
                    except InputsSeen:
                        continue
                    if advance:
                        batches[index] = output
            found.append(gathered)
        return found

    def _forward(self, block: nn.Module, hidden: Tensor) -> Tensor:
        output = block(hidden, **self._arguments[hidden.shape[1]])
        return output[0] if isinstance(output, tuple) else output
