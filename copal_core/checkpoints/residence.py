"""What stays in memory and what visits it: the same rules for the computation and for its estimate. No torch.

Nothing that is computed depends on these choices; they trade memory for reading again.
"""

from __future__ import annotations

import os

from copal_core.checkpoints.devices import memory_free
from copal_core.errors import InvalidValueError

LIMIT = "COPAL_MEMORY_BYTES"  # environment: plan as if no more than this were free
_BLOCKS_SHARE = 0.5  # of the free memory: the rest is for statistics, activations and what else runs
_ACTIVATIONS_SHARE = 0.25


def memory_budget(device: str) -> int:
    """Bytes to plan with: what is free on the device; see `limited`."""
    return limited(memory_free(device), device)


def limited(free: int, device: str) -> int:
    """`free` bytes, for a processor no more than the environment allows.

    Raises InvalidValueError when COPAL_MEMORY_BYTES is no number.
    """
    asked = os.environ.get(LIMIT)
    if asked is None or device.startswith("cuda"):
        return free
    if not asked.isdigit():
        raise InvalidValueError(f"{LIMIT} = '{asked}' is not a number of bytes; use one such as 8000000000")
    return min(free, int(asked))


def keeps_blocks(block_bytes: int, budget: int) -> bool:
    """Whether all decoder blocks stay once they are read; otherwise one visits at a time.

    block_bytes: of all blocks together, in the number format that is computed with.
    """
    return block_bytes <= _BLOCKS_SHARE * budget


def keeps_activations(activation_bytes: int, budget: int) -> bool:
    """Whether the windows' hidden states stay in memory; otherwise they lie in a mapped temporary file."""
    return activation_bytes <= _ACTIVATIONS_SHARE * budget
