"""Rules for what stays in memory and what is streamed, shared by the computation and its estimate. No torch.

These choices trade memory for repeated reading; no result depends on them.
"""

from __future__ import annotations

import os

from copal_core.checkpoints.devices import memory_free
from copal_core.errors import InvalidValueError

LIMIT = "COPAL_MEMORY_BYTES"  # environment variable: plan as if no more than this were free
_BLOCKS_SHARE = 0.5  # of the free memory: the rest is for statistics, activations and other processes
_ACTIVATIONS_SHARE = 0.25


def memory_budget(device: str) -> int:
    """Return the bytes to plan with: the device's free memory, limited by the environment (see `limited`)."""
    return limited(memory_free(device), device)


def limited(free: int, device: str) -> int:
    """Return `free` bytes, on the CPU at most COPAL_MEMORY_BYTES.

    Raises:
        InvalidValueError: COPAL_MEMORY_BYTES is not a number.
    """
    limit = os.environ.get(LIMIT)
    if limit is None or device.startswith("cuda"):
        return free
    if not limit.isdigit():
        raise InvalidValueError(f"{LIMIT} = '{limit}' is not a number of bytes; use one such as 8000000000")
    return min(free, int(limit))


def keeps_blocks(block_bytes: int, budget: int) -> bool:
    """Return whether all decoder blocks stay in memory once they are read; otherwise they are streamed.

    Args:
        block_bytes: size of all blocks together, in the dtype of the computation.
        budget: bytes to plan with.
    """
    return block_bytes <= _BLOCKS_SHARE * budget


def keeps_activations(activation_bytes: int, budget: int) -> bool:
    """Return whether the windows' hidden states stay in memory; otherwise they go to a mapped temporary file."""
    return activation_bytes <= _ACTIVATIONS_SHARE * budget
