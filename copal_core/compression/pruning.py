"""Pruning one decoder block: its seven projections, those that read the same input together.

Tensors in, tensors out: nothing here knows of runs and their files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from copal_core.checkpoints.layout import GROUPS
from copal_core.methods.criterion import Criterion
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.system.torch_settings import exact_products

if TYPE_CHECKING:
    from copal_core.config import Structure

Weights = dict[str, Tensor]  # projection -> (out, in)


@dataclass
class PrunedBlock:
    """Results by projection; see `Pruned` for their shapes. warnings: (projection, kind, message).

    weights: those that a criterion computed anew; the others are the dense ones where `kept`.
    """

    weights: Weights = field(default_factory=dict)
    kept: Weights = field(default_factory=dict)
    scores: Weights = field(default_factory=dict)
    thresholds: dict[str, Tensor | None] = field(default_factory=dict)
    warnings: list[tuple[str, str, str]] = field(default_factory=list)


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
