"""Masks: pruning one decoder block, its seven projections, those that read the same input together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from copal_core.checkpoints.layout import GROUPS
from copal_core.compression.artifact import Artifact, Place, Timed, Weights, arrays_of
from copal_core.compression.recording import BlockRecorder, PrunedBlock
from copal_core.methods.criterion import Criterion
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.store.records import Record
from copal_core.store.run_store import RunStore
from copal_core.system.precision import exact_products
from copal_core.system.threads import one_thread

if TYPE_CHECKING:
    from copal_core.compression.step import Step
    from copal_core.config import Structure


class MaskArtifact(Artifact[Criterion]):
    """Masks, and the weights that a criterion updates."""

    on_disk = (
        "Removed weights are zeros in dense matrices: the files are as large as before, and no faster to run."
    )

    def __init__(self, step: Step, index: int) -> None:
        super().__init__(step, index)
        self._recorder = BlockRecorder(step.store, step.backbone.config, *self._place)
        self._kept: Weights = {}
        self._updated: Weights = {}

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        criterion, structure = self._compressor, self._store.config.structure
        means = None
        if used is not newest:
            with timed("record"), one_thread():
                means = mean_scores(criterion, base, newest)
        parts = prune_parts(criterion, base, used, structure)
        while True:
            with timed("select"):
                part = next(parts, None)
            if part is None:
                return
            with timed("record"), one_thread():
                self._recorder.add(part, means)
            self._kept |= part.kept
            self._updated |= part.weights
            del part  # its scores, before those of the next

    def finish(self) -> list[Record]:
        with one_thread():
            self._store.save_masks(*self._place, arrays_of(self._kept))
            if self._updated:  # besides the mask: the kept values in order, float32
                values = {name: weight[self._kept[name]].float() for name, weight in self._updated.items()}
                self._store.save_arrays("weights", *self._place, arrays_of(values))
            return self._recorder.records()

    def weights(self, base: Weights) -> Weights:
        return self._updated or masked(base, self._kept)

    @classmethod
    def restore(cls, store: RunStore, place: Place, dense: Weights, dtype: torch.dtype) -> Weights:
        masks = {name: torch.from_numpy(mask) for name, mask in store.masks(*place).items()}
        if cls._keeps_numbers(store, place):
            return {name: weight * masks[name].to(weight.device) for name, weight in dense.items()}
        values = store.arrays("weights", *place)
        return {
            name: filled(masks[name], torch.from_numpy(values[name])).to(weight.device, dtype)
            for name, weight in dense.items()
        }

    @classmethod
    def files(cls, compressor: Criterion, store: RunStore, place: Place) -> tuple[str, ...]:
        return ("masks",) if compressor.by_row else ("masks", "weights")

    @classmethod
    def _keeps_numbers(cls, store: RunStore, place: Place) -> bool:
        return not store.has_arrays("weights", *place)


def prune_block(
    criterion: Criterion, base: Mapping[str, Tensor], statistics: BlockStatistics, structure: Structure
) -> PrunedBlock:
    """Remove weights of every projection. base: projection -> (out, in) weights to be scored."""
    block = PrunedBlock()
    for group, names in GROUPS.items():
        gathered = statistics.groups.get(group, GroupStatistics())
        found = prune_group(criterion, {name: base[name] for name in names}, gathered, structure)
        block.weights |= found.weights or masked(base, found.kept)
        block.kept |= found.kept
        block.scores |= found.scores
        block.thresholds |= found.thresholds
        block.warnings += found.warnings
    return block


def prune_group(
    criterion: Criterion, base: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
) -> PrunedBlock:
    """Remove weights of the projections that read one input; all of `prune_parts` together."""
    block = PrunedBlock()
    for part in prune_parts(criterion, base, statistics, structure):
        block.weights |= part.weights
        block.kept |= part.kept
        block.scores |= part.scores
        block.thresholds |= part.thresholds
        block.warnings += part.warnings
    return block


def prune_parts(
    criterion: Criterion, base: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
) -> Iterator[PrunedBlock]:
    """The projections that read one input: one at a time where the criterion allows it, else together.

    base: projection -> (out, in), in the group's order. `weights` of a part holds what a criterion updated, and
    nothing where it only removes. What belongs to the whole group is said of its first projection.
    """
    names, rows, empty = list(base), [weight.shape[0] for weight in base.values()], 0
    together = [names] if not criterion.by_row else [[name] for name in names]
    given = [statistics] if not criterion.by_row else statistics.by_rows(rows)
    for part_names, part_statistics in zip(together, given, strict=True):
        with exact_products():
            part = _part(criterion, {n: base[n] for n in part_names}, part_statistics, structure)
        empty += sum(int((~kept.any(dim=1)).sum()) for kept in part.kept.values())
        if empty and part_names[-1] == names[-1]:
            message = f"{empty} rows lost every weight; compare within rows, or remove less"
            part.warnings.append((names[0], "empty-rows", message))
        yield part


def _part(
    criterion: Criterion, base: Mapping[str, Tensor], statistics: GroupStatistics, structure: Structure
) -> PrunedBlock:
    names, rows = list(base), [weight.shape[0] for weight in base.values()]
    block = PrunedBlock()
    if criterion.by_row:
        (name,) = names
        block.scores[name], chosen = criterion.choose(base[name], statistics, structure, rows)
        block.kept[name], block.thresholds[name] = chosen.kept, chosen.thresholds
        return block
    pruned = criterion.prune(stack(base, names), statistics, structure, rows)
    block.weights = split(pruned.weight, names, rows)
    block.kept = split(pruned.kept, names, rows)
    block.scores = split(pruned.scores, names, rows)
    block.thresholds = _split_thresholds(pruned.thresholds, names, rows)
    block.warnings = [(names[0], kind, message) for kind, message in pruned.warnings.items()]
    return block


def filled(kept: Tensor, values: Tensor) -> Tensor:
    """Return a weight (out, in) float32 with `values` in order where `kept`, and zeros."""
    full = torch.zeros(kept.shape)
    full[kept] = values
    return full


def masked(base: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Weights:
    """The weights that stay, and zeros; in the number format of `base`."""
    return {name: base[name] * kept[name] for name in kept}


def mean_scores(
    criterion: Criterion, base: Mapping[str, Tensor], statistics: GroupStatistics
) -> dict[str, float]:
    """projection -> mean score of the weights in `base` (those of one group) under `statistics`."""
    names, rows = list(base), [weight.shape[0] for weight in base.values()]
    if not criterion.by_row:
        parts = split(criterion.score(stack(base, names), statistics), names, rows)
        return {name: float(part.mean()) for name, part in parts.items()}
    given = statistics.by_rows(rows)
    return {
        name: float(criterion.scores(weight, part).mean())
        for (name, weight), part in zip(base.items(), given, strict=True)
    }


def stack(weights: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """The projections of a group as one tall weight (Σ out, in)."""
    return weights[names[0]] if len(names) == 1 else torch.cat([weights[name] for name in names])


def split(tall: Tensor, names: Sequence[str], rows: Sequence[int]) -> Weights:
    """The inverse of `stack`: views of each projection's rows."""
    return dict(zip(names, tall.split(list(rows)), strict=True))


def _split_thresholds(
    thresholds: Tensor | None, names: Sequence[str], rows: Sequence[int]
) -> dict[str, Tensor | None]:
    """Thresholds of each projection: one a row, or one a layer; None for N:M."""
    if thresholds is None:
        return dict.fromkeys(names)
    counts = list(rows) if thresholds.numel() == sum(rows) else [1] * len(names)
    return dict(zip(names, thresholds.split(counts), strict=True))
