"""How a run decided about one layer: the step is calibrated again up to its block, and nothing else is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from copal_core.analysis.diagnosis.evidence import Place, band_of, evidence_file, forget_old
from copal_core.analysis.diagnosis.kept import Result, domain_windows, require_kept
from copal_core.checkpoints import Checkpoint
from copal_core.checkpoints.backbone import Backbone, swapped
from copal_core.checkpoints.layout import GROUP_OF, GROUPS
from copal_core.compression.pruning import Weights, split, stack
from copal_core.compression.restore import dense_weights, pruned_weights
from copal_core.config import Method
from copal_core.errors import InvalidValueError
from copal_core.methods.criteria import CRITERIA
from copal_core.methods.criterion import Criterion, Pruned, build_criterion
from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.statistics.blockwise import HiddenStates
from copal_core.store.run_store import RunStore
from copal_core.system import files

Report = Callable[[str, int, int], None]


def gather_decision(
    store: RunStore, checkpoint: Checkpoint, place: Place, result: Result, row: int, report: Report
) -> None:
    """Write the scores and thresholds that made the layer's mask. row: an output that must be among them."""
    backbone = checkpoint.open(store.config.protocol.device, store.config.protocol.dtype)
    pruned, base, rows = replay(store, checkpoint, backbone, place, result, report)
    first = sum(rows[: (names := GROUPS[GROUP_OF[place.projection]]).index(place.projection)])
    count = rows[names.index(place.projection)]
    band = band_of(row, count, pruned.scores.shape[1], 3)
    kept = split(pruned.kept, names, rows)[place.projection]
    stored = torch.from_numpy(store.masks(result.method, result.step, place.block)[place.projection])
    arrays = {
        "weight": base[place.projection].float()[band].cpu().contiguous().numpy(),
        "score": pruned.scores[first : first + count][band].cpu().contiguous().numpy(),
        "first": np.array(band.start),
    }
    if pruned.thresholds is not None and store.config.structure.group == "layer":
        arrays["threshold"] = pruned.thresholds[names.index(place.projection)].cpu().numpy()
    arrays["removed.0"] = np.packbits(~stored.numpy()[band], axis=1)
    agreement = float((kept.cpu() == stored).float().mean())
    path = evidence_file(store, place, result)
    files.write_arrays(path, arrays, {"about": json.dumps({"agreement": agreement})})
    forget_old(path)


def replay(
    store: RunStore, checkpoint: Checkpoint, backbone: Backbone, place: Place, result: Result, report: Report
) -> tuple[Pruned, Weights, list[int]]:
    """The projections that read the layer's input, pruned as the run did, with the weights that were scored.

    Returns the tall result, projection -> weights before, and the row counts of the group. Raises InvalidValueError
    for a method that makes no mask, RunError when the run keeps too little.
    """
    method = Method.parse(result.method)
    if method.name not in CRITERIA.names():
        raise InvalidValueError(f"{result.method} makes no mask by scores; choose a method that prunes")
    require_kept(store, result)
    criterion, strategy = build_criterion(method.name, method.options), STRATEGIES.get(method.strategy)()
    group = GROUP_OF[place.projection]
    used = _remembered(store, place, result, strategy, backbone.device)
    if used is None and criterion.statistics():
        used = _calibrated(store, checkpoint, backbone, place, result, criterion, strategy, report)
    with backbone.block(place.block) as block:
        base = {
            name: weight.clone()
            for name, weight in _base(store, result, strategy, place.block, block).items()
        }
    rows = [base[name].shape[0] for name in GROUPS[group]]
    gathered = used.groups[group] if used is not None else GroupStatistics()
    tall = stack(base, GROUPS[group])
    return criterion.prune(tall, gathered, store.config.structure, rows), base, rows


def _remembered(
    store: RunStore, place: Place, result: Result, strategy: Strategy, device: torch.device
) -> BlockStatistics | None:
    """Return what a strategy with a memory kept of this very step: the statistics that were used."""
    if not strategy.remembers or not store.has_arrays("memory", result.method, result.step, place.block):
        return None
    arrays = store.arrays("memory", result.method, result.step, place.block)
    return BlockStatistics.from_tensors(
        {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    )


def _calibrated(
    store: RunStore,
    checkpoint: Checkpoint,
    backbone: Backbone,
    place: Place,
    result: Result,
    criterion: Criterion,
    strategy: Strategy,
    report: Report,
) -> BlockStatistics:
    """The step's calibration again, through the blocks as that step left them."""
    windows = [_windows(store, checkpoint, domain) for domain in strategy.domains(result.step)]
    states = HiddenStates(backbone, windows)
    pruned = store.config.protocol.propagate == "pruned"
    for index in range(place.block):
        report(f"calibrating {result} again", index, place.block + 1)
        with backbone.block(index) as block:
            weights: Any = (
                pruned_weights(store, result.method, result.step, index, block)
                if pruned
                else _base(store, result, strategy, index, block)
            )
            with swapped(block, weights):
                states.advance(block)
    with (
        backbone.block(place.block) as block,
        swapped(block, _base(store, result, strategy, place.block, block)),
    ):
        found = states.calibrate(block, criterion.statistics(), advance=False)
    return strategy.combine(None, found)


def _base(store: RunStore, result: Result, strategy: Strategy, index: int, block: nn.Module) -> Weights:
    """The weights that were scored: dense, or those of the step before."""
    if strategy.starts_from_pruned and result.step > 1:
        return pruned_weights(store, result.method, result.step - 1, index, block)
    return dense_weights(block)


def _windows(store: RunStore, checkpoint: Checkpoint, domain: int) -> Tensor:
    return torch.from_numpy(domain_windows(store, domain - 1, checkpoint)["calibration"])
