"""The output error of masks at many sparsities, on every domain, from Gram matrices alone.

Masks are compared within rows, so that every row's mask and error depend on that row alone: the rows of a layer
stack for all sparsities at once, and a sample of rows stands for a large layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from copal_core.analysis.layers.surgeon import surgeon
from copal_core.config import Structure
from copal_core.methods.criterion import build_criterion
from copal_core.methods.masks import removed_count, select
from copal_core.statistics.accumulators import GroupStatistics

MASKS = ("copal", "magnitude", "sparsegpt", "wanda")
PATTERN = (2, 4)
SPARSITIES = (0.03, 0.07, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
_LEAST_ROWS = 32
_CHUNK = 2**25  # numbers of a stack of masked rows that are held at once


@dataclass
class MaskErrors:
    """errors: (method, domain) -> one for each of `sparsities`; points: at 2 of each 4 kept. rows: measured on."""

    sparsities: tuple[float, ...]
    rows: int
    errors: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    points: dict[tuple[str, str], float] = field(default_factory=dict)


def measure_masks(
    weight: Tensor,
    statistics: Mapping[str, GroupStatistics],
    given: GroupStatistics,
    methods: Sequence[str],
    sparsities: Sequence[float],
    flops: float,
) -> MaskErrors:
    """Every method at every sparsity. weight: (out, in) float32; given: the statistics that score the weights."""
    rows, columns = weight.shape
    products = len(methods) * (len(sparsities) + 1) * len(statistics) + len(statistics)
    affordable = int(flops / (2.0 * columns**2 * products))
    chosen = _sample(rows, max(_LEAST_ROWS, affordable))
    part = weight[chosen]  # (rows measured, in)
    grams = {name: gathered.require("input_gram") for name, gathered in statistics.items()}
    energy = {name: float(torch.sum((part @ gram) * part)) or 1.0 for name, gram in grams.items()}
    found = MaskErrors(tuple(sparsities), len(chosen))
    counts = [removed_count(columns, sparsity) for sparsity in sparsities]
    for method in methods:
        if method == "sparsegpt":
            differences = _by_surgeon(part, given.mean("input_gram"), counts)
        else:
            scores = build_criterion(method, {}).score(part, given.rows(chosen))
            differences = removed_rows(part, scores, counts)
            if columns % PATTERN[1] == 0:
                kept = select(scores, Structure(kind="n:m", keep=PATTERN[0], group_size=PATTERN[1])).kept
                differences = torch.cat([differences, (part * ~kept)[None]])
        for name, gram in grams.items():
            lost = [value / energy[name] for value in _energies(differences, gram)]
            found.errors[method, name] = lost[: len(counts)]
            if len(lost) > len(counts):
                found.points[method, name] = lost[-1]
    return found


def removed_rows(weight: Tensor, scores: Tensor, counts: Sequence[int]) -> Tensor:
    """W − Ŵ (sparsities, rows, in) when the `count` smallest scores of each row go, ties by index."""
    order = scores.argsort(dim=1, stable=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(weight.shape[1]).expand_as(order))
    return torch.stack([weight * (place < count) for count in counts])


def _by_surgeon(weight: Tensor, gram: Tensor, counts: Sequence[int]) -> Tensor:
    """SparseGPT's W − Ŵ at every count, and at the pattern where it divides the columns."""
    prepared = surgeon(gram)
    differences = prepared.changes(weight, counts)
    keep, group = PATTERN
    if weight.shape[1] % group:
        return differences
    removed = [weight.shape[1] * (group - keep) // group]
    return torch.cat([differences, prepared.changes(weight, removed, group)])


def _energies(differences: Tensor, gram: Tensor) -> list[float]:
    """tr(D H Dᵀ) of each matrix in a stack (n, rows, in)."""
    at_once = max(1, _CHUNK // differences[0].numel())
    found: list[float] = []
    for part in differences.split(at_once):
        flat = part.reshape(-1, part.shape[-1])
        by_row = torch.sum((flat @ gram) * flat, dim=1).double()
        found += by_row.reshape(part.shape[0], -1).sum(dim=1).clamp_min(0).tolist()
    return found


def _sample(rows: int, wanted: int) -> Tensor:
    """Indices of `wanted` rows spread over the layer, always the same; all where there are no more."""
    if wanted >= rows:
        return torch.arange(rows)
    generator = torch.Generator().manual_seed(rows)
    return torch.randperm(rows, generator=generator)[:wanted].sort().values
