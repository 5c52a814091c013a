"""The cost of a run before it starts: minutes, memory and disk, and a smaller one that fits."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from copal_core.config import Method, Protocol, RunConfig, Windows
from copal_core.experiment.memory_plan import PROCESS_BYTES, Plan, plan
from copal_core.experiment.progress import domains_at_once, total_cost, training_cost
from copal_core.methods.facts import Shapes, facts_of
from copal_core.methods.strategies import STRATEGIES
from copal_core.store.runs import runs_root

if TYPE_CHECKING:
    from copal_core.checkpoints import Description

_EFFICIENCY = 0.55  # of the matrix rate, that blocks reach with attention, norms and small batches
_HIDDEN_COPIES = 3
_RECORDING = 3e-8  # seconds that measuring and drawing take for each weight and step
_BATCH_BYTES = 2**28  # of activations at work where the others lie in a file


@dataclass(frozen=True)
class Estimate:
    """Bytes and minutes; `problems` says in words what does not fit, `smaller` is a protocol that does.

    plan: what stays in memory, what is read how often.
    """

    minutes: float
    memory_bytes: int
    memory_free: int
    disk_bytes: int
    disk_free: int
    problems: tuple[str, ...]
    smaller: RunConfig | None
    plan: Plan

    @property
    def fits(self) -> bool:
        return not self.problems


def estimate(config: RunConfig, description: Description, root: Path | None = None) -> Estimate:
    """Estimate the cost of `config` on the described checkpoint, on this machine."""
    found = _estimate(config, description, root)
    if found.fits:
        return found
    for calibration, evaluation in (("16x256", "12x256"), ("8x256", "8x256"), ("8x128", "4x128")):
        protocol = config.protocol.model_dump() | {
            "calibration": Windows.parse(calibration),
            "evaluation": Windows.parse(evaluation),
        }
        smaller = RunConfig(**{**dict(config), "protocol": Protocol(**protocol)})
        if total_cost(smaller) < total_cost(config) and _estimate(smaller, description, root).fits:
            return Estimate(**{**found.__dict__, "smaller": smaller})
    return found


def _estimate(config: RunConfig, description: Description, root: Path | None) -> Estimate:
    memory, disk = memory_bytes(config, description), disk_bytes(config, description)
    planned = plan(config, description, remembered_bytes(config, description))
    spilled = planned.activations if planned.activations_on_disk else 0
    disk += spilled
    disk_free = shutil.disk_usage(_existing(root or runs_root())).free
    context = description.context
    problems = []
    if memory > description.memory_free:
        problems.append(
            f"the run needs {_gigabytes(memory)} of memory and {_gigabytes(description.memory_free)} is free; "
            "use fewer or shorter windows, or a smaller checkpoint"
        )
    if disk > disk_free:
        problems.append(
            f"the run needs {_gigabytes(disk)} of disk and {_gigabytes(disk_free)} is free; "
            f"use {'fewer or shorter windows' if 2 * spilled > disk else 'fewer domains or methods'}, "
            "or free some space"
        )
    for name in ("calibration", "evaluation"):
        length = getattr(config.protocol, name).length
        if context and length > context:
            problems.append(f"{name} windows of {length} tokens exceed the checkpoint's context of {context}")
    return Estimate(
        minutes(config, description),
        memory,
        description.memory_free,
        disk,
        disk_free,
        tuple(problems),
        None,
        planned,
    )


def minutes(config: RunConfig, description: Description) -> float:
    """Return wall-clock minutes, from the run's tokens and this machine's measured matrix rate."""
    weights = sum(out * columns for out, columns in description.projections.values()) * description.blocks
    rate = 100e12 if description.device.startswith("cuda") else matrix_rate()
    computing = total_cost(config) * 2 * weights / (rate * _EFFICIENCY)
    computing += _RECORDING * weights * len(config.methods) * len(config.domains)
    # the next block is read while one computes: the slower of the two counts
    return max(computing, plan(config, description).read_seconds) / 60


def memory_bytes(config: RunConfig, description: Description) -> int:
    """Return the peak of resident bytes: the checkpoint, one block at work, the windows' hidden states."""
    shapes, steps = description.projections, len(config.domains)
    block = max(_block_bytes(method, steps, shapes) for method in config.methods)
    if any(map(training_cost, config.methods)):
        # the whole model in single precision; its factors, their gradients and the optimiser's two moments, and copies
        weights = sum(out * columns for out, columns in shapes.values()) * description.blocks
        block += 4 * description.total + 6 * 4 * weights
    found = plan(config, description)
    batch = min(_BATCH_BYTES, found.activations)
    hidden = batch if found.activations_on_disk else found.activations * _HIDDEN_COPIES
    return int(found.weights + block + hidden + PROCESS_BYTES)


def _block_bytes(method: Method, steps: int, shapes: Shapes) -> int:
    """Return the bytes that compressing one block takes at the last step: statistics, scores, masks, new weights."""
    facts, strategy = facts_of(method.name), STRATEGIES.get(method.strategy)
    weights = sum(out * columns for out, columns in shapes.values())
    widest = max(out * columns for out, columns in shapes.values())
    # statistics of every domain whose text is read, and what is made of them
    groups = facts.gathered_bytes(shapes)
    domains = domains_at_once(method, steps)
    statistics = sum(groups.values()) * (domains + 1 if domains > 1 else 1)
    if strategy.remembers and steps > 1:  # one group's memory is read, and the sum made, at a time
        statistics += 2 * max(groups.values())
    square, whole = facts.workspace
    workspace = max(square * columns**2 + whole * out * columns for out, columns in shapes.values())
    if facts.by_row:
        # one projection's scores at a time beside the masks; the masked copy of the block comes after the statistics
        return max(statistics, 4 * weights) + weights + 3 * 4 * widest + workspace
    return statistics + 3 * 4 * weights + workspace


def disk_bytes(config: RunConfig, description: Description) -> int:
    """Return the bytes that the run's folder will hold: results of all steps, and the memory of past domains."""
    block = sum(
        facts_of(method.name).stored_bytes(
            description.projections, config.structure, config.protocol.map_size
        )
        for method in config.methods
    )
    return int(block * description.blocks * len(config.domains)) + remembered_bytes(config, description)


def remembered_bytes(config: RunConfig, description: Description) -> int:
    """Return the bytes of the statistics of past domains that the run's methods keep, all steps together."""
    block = sum(
        sum(facts_of(method.name).gathered_bytes(description.projections).values())
        for method in config.methods
        if STRATEGIES.get(method.strategy).remembers
    )
    return block * description.blocks * len(config.domains)


@lru_cache(maxsize=1)
def matrix_rate() -> float:
    """Return multiply-add operations per second (two for each pair) of a float32 matrix product here, measured once."""
    import time

    import numpy as np

    a = np.ones((1024, 1024), dtype=np.float32)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
