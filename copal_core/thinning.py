"""One step of a neuron method: the same pass as for masks, with whole hidden neurons where weights would go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copal_core import budget
from copal_core.continual import Compressed, Step
from copal_core.lowrank._base import relative_error
from copal_core.neurons._base import (
    NeuronSelector,
    Selection,
    changed_columns,
    removed_weights,
    without_twins,
)
from copal_core.pruning import Weights
from copal_core.records import NeuronRecord, Record, WarningRecord
from copal_core.statistics.accumulators import BlockStatistics
from copal_core.variants import arrays_of


@dataclass
class ThinnedBlock:
    """weights: projection -> (out, in), zero for removed neurons."""

    weights: Weights = field(default_factory=dict)
    selection: Selection = field(default_factory=lambda: without_twins(torch.zeros(0, dtype=torch.long), 0))


def thin_block(
    selector: NeuronSelector,
    base: Mapping[str, Tensor],
    statistics: BlockStatistics,
    generator: torch.Generator,
) -> ThinnedBlock:
    """Remove neurons of one block. base: projection -> (out, in) weights as they are before."""
    selection = selector.select(base, statistics, generator)
    return ThinnedBlock({**base, **removed_weights(base, selection)}, selection)


@dataclass
class NeuronStep(Step):
    """`Step` with neurons: chosen, stored, recorded and propagated in place of a mask."""

    def _compress(self, index: int, base: Weights, used: BlockStatistics) -> ThinnedBlock:
        if not isinstance(self.criterion, NeuronSelector):
            raise TypeError(f"{self.criterion} chooses no neurons")
        generator = torch.Generator().manual_seed(self.store.config.protocol.seed * 1_000_003 + index)
        return thin_block(self.criterion, base, used, generator)

    def _record(
        self, index: int, base: Weights, found: Compressed, used: BlockStatistics, newest: BlockStatistics
    ) -> list[Record]:
        if not isinstance(found, ThinnedBlock):
            raise TypeError("this step removes neurons")
        place = (str(self.method), self.step, index)
        before = self._before(index)
        self.store.save_arrays("neurons", *place, _arrays(found, self._given_before(before)))
        self._remember(index, used)
        return _records(place, base, found, None if before is None else before["kept"], _gram(newest))

    def _before(self, index: int) -> Mapping[str, NDArray[Any]] | None:
        """What the step before stored of this block."""
        if self.step == 1:
            return None
        return self.store.arrays("neurons", str(self.method), self.step - 1, index)

    def _given_before(self, before: Mapping[str, NDArray[Any]] | None) -> NDArray[Any]:
        """Columns of down that differ from the dense ones before this step."""
        if before is None or not self.strategy.starts_from_pruned:
            return np.zeros(0, np.int64)
        return before["columns"]


def _arrays(found: ThinnedBlock, given_before: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """For the store: kept neurons, the pairs, and the columns of down that are no longer the dense ones."""
    selection = found.selection
    columns = torch.cat([changed_columns(selection), torch.from_numpy(given_before)]).unique()
    columns = columns[selection.kept[columns]]
    down = found.weights["down_proj"][:, columns.to(found.weights["down_proj"].device)]
    tensors = {
        "kept": selection.kept,
        "removed": selection.removed,
        "twins": selection.twins,
        "information": selection.information,
        "coefficients": selection.coefficients,
        "columns": columns,
        "down": down.float(),
    }
    return arrays_of(tensors)


def _gram(newest: BlockStatistics) -> Tensor | None:
    group = newest.groups.get("mlp_output")
    return group.mean("input_gram") if group is not None and "input_gram" in group.totals else None


def _records(
    place: tuple[str, int, int],
    base: Mapping[str, Tensor],
    found: ThinnedBlock,
    before: NDArray[np.bool_] | None,
    gram: Tensor | None,
) -> list[Record]:
    selection = found.selection
    kept = selection.kept.numpy()
    hidden, neurons = base["down_proj"].shape
    parameters = 3 * hidden * int(kept.sum())
    shared = selection.information[~selection.information.isnan()]
    error = None
    if gram is not None:
        error = relative_error(base["down_proj"].float(), found.weights["down_proj"].float(), gram)
    record = NeuronRecord(
        *place,
        neurons=neurons,
        removed=int((~kept).sum()),
        parameters=parameters,
        bytes=parameters * budget.VALUE_BITS // 8,
        information_min=float(shared.min()) if len(shared) else None,
        information_mean=float(shared.mean()) if len(shared) else None,
        information_max=float(shared.max()) if len(shared) else None,
        output_error=error,
        stay_removed=None if before is None else int((~before & ~kept).sum()),
        revived=None if before is None else int((~before & kept).sum()),
        newly_removed=None if before is None else int((before & ~kept).sum()),
    )
    warnings = [
        WarningRecord(*place, "down_proj", kind, message) for kind, message in selection.warnings.items()
    ]
    return [record, *warnings]
