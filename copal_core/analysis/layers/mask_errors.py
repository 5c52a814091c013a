"""The output error of masks at many sparsities, on every domain, from Gram matrices alone.

Masks are compared within rows, so that every row's mask and error depend on that row alone: the rows of a layer
stack for all sparsities at once, and a sample of rows stands for a large layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from copal_core.methods.criterion import build_criterion
from copal_core.methods.masks import removed_count
from copal_core.statistics.accumulators import GroupStatistics

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
    """Measure every method at every sparsity.

    weight: (out, in) float32. given: the statistics that score the weights.
    """
    rows, columns = weight.shape
    products = len(methods) * (len(sparsities) + 1) * len(statistics) + len(statistics)
    affordable = int(flops / (2.0 * columns**2 * products))
    chosen = _sample(rows, max(_LEAST_ROWS, affordable))
    part = weight[chosen]  # (rows measured, in)
    grams = {name: gathered.require("input_gram") for name, gathered in statistics.items()}
    energy = {name: float(torch.sum((part @ gram) * part)) or 1.0 for name, gram in grams.items()}
    found, (keep, group) = MaskErrors(tuple(sparsities), len(chosen)), PATTERN
    counts = [removed_count(columns, sparsity) for sparsity in sparsities]
    for method in methods:
        remove = build_criterion(method, {}).removal(part, given.rows(chosen))
        differences = remove(counts)  # (sparsities, rows, in)
        if columns % group == 0:
            differences = torch.cat([differences, remove([columns * (group - keep) // group], group)])
        for name, gram in grams.items():
            lost = [value / energy[name] for value in _energies(differences, gram)]
            found.errors[method, name] = lost[: len(counts)]
            if len(lost) > len(counts):
                found.points[method, name] = lost[-1]
    return found


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
