"""The plan of a run's memory: what stays, what is read how often, and what is written; known before it starts.

Torch-free: from the configuration, the checkpoint's headers and the free memory alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from copal_core.checkpoints import Description, residence
from copal_core.checkpoints.devices import DTYPE_BYTES
from copal_core.config import RunConfig
from copal_core.experiment.progress import domains_at_once, steps

PROCESS_BYTES = 600 * 2**20  # Python, torch and transformers
READ_RATE = 5e8  # bytes a second from a disk, where the system cannot keep the files in memory


@dataclass(frozen=True)
class Plan:
    """Bytes, unless named otherwise.

    visits: how often every block is read or visited. resident: weights that stay in memory.
    visiting: the most that one visiting part (a block, or the head) takes; 0 where all stay.
    read: from the checkpoint's files, over the whole run. activations: of the windows between two blocks.
    """

    keeps_blocks: bool
    visits: int
    blocks: int
    resident: int
    visiting: int
    read: int
    read_seconds: float
    activations: int
    activations_on_disk: bool
    remembered: int
    device: str
    reason: str

    @property
    def weights(self) -> int:
        """Most of the weights that are in memory at once."""
        return self.resident + self.visiting

    def lines(self, size: Callable[[float], str] | None = None) -> tuple[str, ...]:
        """The plan in sentences. size: bytes in words; decimal units by default."""
        size = size or gigabytes
        where = f"Computes on {self.device}; {self.reason}."
        if self.keeps_blocks:
            first = (
                f"All {self.blocks} blocks stay in memory once read ({size(self.resident)}, embedding and head "
                "included)."
            )
        else:
            first = (
                f"The model does not fit beside the rest: one of {self.blocks} blocks visits at a time "
                f"({size(self.visiting)} at most), the next is read while it computes."
            )
        times = "once" if self.keeps_blocks else f"{self.visits} times"
        second = f"The checkpoint is read {times}, {size(self.read)} in all."
        place = "in a temporary file" if self.activations_on_disk else "in memory"
        third = f"Activations of the windows lie {place} ({size(self.activations)})."
        lines = [where, first, second, third]
        if self.remembered:
            lines.append(
                f"Memory of past domains is written block by block to the run's folder ({size(self.remembered)})."
            )
        return tuple(lines)


def plan(config: RunConfig, description: Description, remembered: int = 0) -> Plan:
    """Plan a run. remembered: bytes that the run's methods keep of past domains."""
    compute, stored = DTYPE_BYTES[description.dtype], DTYPE_BYTES.get(description.stored_dtype, 4)
    ends = description.vocab * description.hidden
    block = (description.total - ends * (1 if description.tied else 2)) // max(1, description.blocks)
    budget = residence.limited(description.memory_free, description.device)
    keeps = residence.keeps_blocks(block * description.blocks * compute, budget)
    visits = 1 + 2 * sum(1 for _ in steps(config))  # the dense model; each step prunes, and is evaluated
    times = 1 if keeps else visits
    read = int(description.file_bytes * times)
    tokens = _tokens(config)
    activations = tokens * description.hidden * compute
    # a visiting block is mapped as it is stored, and widened one projection at a time
    largest = max(rows * columns for rows, columns in description.projections.values())
    visiting = max(block * stored * 2 + largest * compute, ends * compute)
    return Plan(
        keeps_blocks=keeps,
        visits=visits,
        blocks=description.blocks,
        resident=description.memory_needed(description.dtype) if keeps else 0,
        visiting=0 if keeps else visiting,
        read=read,
        read_seconds=read / READ_RATE if read > description.memory_free else 0.0,
        activations=activations,
        activations_on_disk=description.device == "cpu"
        and not residence.keeps_activations(activations, budget),
        remembered=remembered,
        device=description.device,
        reason=description.dtype_reason,
    )


def _tokens(config: RunConfig) -> int:
    """Return the most tokens whose hidden states are held at once."""
    at_once = max(domains_at_once(method, len(config.domains)) for method in config.methods)
    calibration = config.protocol.calibration.tokens * at_once
    return max(calibration, config.protocol.evaluation.tokens * len(config.domains))


def gigabytes(count: float) -> str:
    """Bytes in words: two digits below 10 GB, and MB below 100 MB."""
    if count < 1e8:
        return f"{max(1, round(count / 1e6))} MB"
    return f"{count / 1e9:.1f} GB"
