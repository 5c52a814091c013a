"""Pruning one decoder block: its seven projections, those that read the same input together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from copal_core.checkpoints.backbone import GROUPS
from copal_core.config import Structure
from copal_core.criteria._base import Criterion
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics

Weights = dict[str, Tensor]  # projection -> (out, in)


@dataclass
class PrunedBlock:
    """Results by projection; see `Pruned` for their shapes. warnings: (projection, kind, message)."""

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
        rows = [base[name].shape[0] for name in names]
        gathered = statistics.groups.get(group, GroupStatistics())
        pruned = criterion.prune(stack(base, names), gathered, structure, rows)
        block.weights |= split(pruned.weight, names, rows)
        block.kept |= split(pruned.kept, names, rows)
        block.scores |= split(pruned.scores, names, rows)
        block.thresholds |= _split_thresholds(pruned.thresholds, names, rows)
        block.warnings += [(names[0], kind, message) for kind, message in pruned.warnings.items()]
        empty = int((~pruned.kept.any(dim=1)).sum())
        if empty:
            message = f"{empty} rows lost every weight; compare within rows, or remove less"
            block.warnings.append((names[0], "empty-rows", message))
    return block


def mean_scores(
    criterion: Criterion, base: Mapping[str, Tensor], statistics: BlockStatistics
) -> dict[str, float]:
    """projection -> mean score of the weights in `base` under `statistics`."""
    means: dict[str, float] = {}
    for group, names in GROUPS.items():
        scores = criterion.score(stack(base, names), statistics.groups.get(group, GroupStatistics()))
        parts = split(scores, names, [base[name].shape[0] for name in names])
        means |= {name: float(part.mean()) for name, part in parts.items()}
    return means


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
