"""What a run will cost, before it starts: minutes, memory and disk, and a smaller one that fits."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from copal_core.config import Protocol, RunConfig, Windows
from copal_core.experiment.memory_plan import PROCESS_BYTES, Plan, plan
from copal_core.experiment.progress import total_cost
from copal_core.methods.amounts import training_tokens
from copal_core.methods.lowrank import LOWRANK
from copal_core.methods.neurons import NEURONS
from copal_core.methods.stored_size import structure_share
from copal_core.store.runs import runs_root

if TYPE_CHECKING:
    from copal_core.checkpoints import Description

_EFFICIENCY = 0.55  # of the matrix rate, that blocks reach with attention, norms and small batches
_HIDDEN_COPIES = 3
_RECORDING = 3e-8  # seconds that measuring and drawing take for each weight and step
_BATCH_BYTES = 2**28  # of activations at work where the others lie in a file
_BY_ROWS = ("magnitude", "wanda", "copal")
_READERS = ("q_proj", "o_proj", "gate_proj", "down_proj")  # one for each input that has a Gram matrix


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
    """Cost of `config` on the described checkpoint, on this machine."""
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
    """Wall-clock minutes, from the run's tokens and this machine's measured matrix rate."""
    weights = sum(out * columns for out, columns in description.projections.values()) * description.blocks
    rate = 100e12 if description.device.startswith("cuda") else matrix_rate()
    computing = total_cost(config) * 2 * weights / (rate * _EFFICIENCY)
    computing += _RECORDING * weights * len(config.methods) * len(config.domains)
    # the next block is read while one computes: the slower of the two counts
    return max(computing, plan(config, description).read_seconds) / 60


def memory_bytes(config: RunConfig, description: Description) -> int:
    """Peak resident bytes: the checkpoint, one block's statistics, the windows' hidden states."""
    shapes = description.projections
    largest = max(shapes.values(), key=lambda shape: shape[1])[1]
    block = sum(out * columns for out, columns in shapes.values())
    # by rows: one projection's scores at a time beside the statistics and the masks; else updated weights too
    by_rows = all(method.name in _BY_ROWS for method in config.methods)
    widest = max(out * columns for out, columns in shapes.values())
    statistics = 4 * block * 3 if not by_rows else 4 * block + block + 3 * 4 * widest
    gram = 4 * sum(shapes[name][1] ** 2 for name in _READERS)
    joint = {method.name for method in config.methods if method.strategy == "joint"}
    if "copal" in joint:  # the statistics of every domain so far are there together
        statistics += 4 * block * len(config.domains)
    if joint & {"sparsegpt", *LOWRANK.names()} - {"svd"}:
        statistics += gram * (len(config.domains) - 1)
    if any(method.name == "sparsegpt" for method in config.methods):
        statistics += 4 * 4 * largest**2
    if any(method.name in LOWRANK.names() for method in config.methods):
        # measured: double-precision copies of the Gram matrix, its factor, W L and what its decomposition needs
        layer = 8 * max(2 * columns**2 + 7 * out * columns for out, columns in shapes.values())
        statistics += 2 * gram + layer
    if any(training_tokens(method) for method in config.methods):
        # the whole model in single precision; its factors, their gradients and the optimiser's two moments, and copies
        statistics += 4 * description.total + 6 * 4 * block * description.blocks
    neurons = shapes["down_proj"][1] if "down_proj" in shapes else largest
    if any(method.name == "mutual-information" for method in config.methods):
        statistics += 3 * 2 * 4 * neurons**2  # two Gram matrices: of this step, remembered, and their sum
    found = plan(config, description)
    batch = min(_BATCH_BYTES, found.activations)
    hidden = batch if found.activations_on_disk else found.activations * _HIDDEN_COPIES
    return int(found.weights + statistics + hidden + PROCESS_BYTES)


def disk_bytes(config: RunConfig, description: Description) -> int:
    """Bytes the run's folder will hold: masks, maps, memory of past domains, updated weights."""
    weights = sum(out * columns for out, columns in description.projections.values()) * description.blocks
    tile = config.protocol.map_size**2 * 6
    layers = len(description.projections) * description.blocks
    shape_down = description.projections.get("down_proj", (0, 0))
    total = 0.0
    for method in config.methods:
        each = weights / 8 + layers * (tile + 2048)
        if method.name in NEURONS.names():
            each = 2048 * description.blocks  # which neurons are left
            if method.name == "mutual-information":
                each += 0.4 * description.blocks * shape_down[0] * shape_down[1]  # columns that took over
        if method.name in LOWRANK.names():
            each += 2 * weights * structure_share(config.structure)  # factors of 16 bits
        if method.name == "sparsegpt":
            each += 4 * weights * (1 - config.structure.removed)
        total += each * len(config.domains)
    return int(total) + remembered_bytes(config, description)


def remembered_bytes(config: RunConfig, description: Description) -> int:
    """Bytes of the statistics of past domains that the run's methods keep, all steps together."""
    weights = sum(out * columns for out, columns in description.projections.values()) * description.blocks
    inputs = {columns for _, columns in description.projections.values()}
    gram = 4 * description.blocks * (2 * min(inputs) ** 2 + min(inputs) ** 2 + max(inputs) ** 2)
    neurons = description.projections.get("down_proj", (0, 0))[1]
    remembered = {
        "copal": 4 * weights,
        "sparsegpt": gram,
        **dict.fromkeys(LOWRANK.names(), gram),
        "svd": 0,
        "mutual-information": 2 * 4 * description.blocks * neurons**2,
    }
    found = [remembered.get(method.name, 0) for method in config.methods if method.strategy == "accumulate"]
    return sum(found) * len(config.domains)


@lru_cache(maxsize=1)
def matrix_rate() -> float:
    """Multiply-add operations per second (two for each pair) of a float32 matrix product here, measured once."""
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
