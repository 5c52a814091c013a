"""One step of a neuron method: the same pass as for masks, with whole hidden neurons where weights would go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copal_core.checkpoints.layout import GROUP_OF
from copal_core.compression.masks import Weights
from copal_core.compression.restore import arrays_of
from copal_core.compression.step import Step, Timed
from copal_core.methods import stored_size
from copal_core.methods.decomposition import relative_error
from copal_core.methods.neuron_selector import (
    NeuronSelector,
    Selection,
    changed_columns,
    removed_weights,
    without_twins,
)
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.store.records import NeuronRecord, Record, WarningRecord
from copal_core.system.precision import exact_products
from copal_core.system.threads import one_thread


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


class ThinningOutcome:
    """Whole neurons: chosen once the statistics of the whole block are there."""

    def __init__(self, step: Step, index: int) -> None:
        if not isinstance(step.criterion, NeuronSelector):
            raise TypeError(f"{step.criterion} chooses no neurons")
        self._selector = step.criterion
        self._step = step
        self._place = (str(step.method), step.step, index)
        self._base: Weights = {}
        self._used, self._newest = BlockStatistics(), BlockStatistics()
        self._found = ThinnedBlock()

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        self._base |= base
        group = GROUP_OF[next(iter(base))]
        self._used.groups[group], self._newest.groups[group] = used, newest
        if len(self._base) < len(GROUP_OF):
            return
        seed = self._step.store.config.protocol.seed * 1_000_003 + self._place[2]
        with timed("select"), exact_products():
            generator = torch.Generator().manual_seed(seed)
            self._found = thin_block(self._selector, self._base, self._used, generator)

    def finish(self) -> list[Record]:
        before = self._before()
        with one_thread():
            arrays = _arrays(self._found, self._given_before(before))
            self._step.store.save_arrays("neurons", *self._place, arrays)
            kept = None if before is None else before["kept"]
            return _records(self._place, self._base, self._found, kept, _gram(self._newest))

    def weights(self, base: Weights) -> Weights:
        return self._found.weights

    def _before(self) -> Mapping[str, NDArray[Any]] | None:
        """What the step before stored of this block."""
        method, step, index = self._place
        if step == self._step.store.config.first_step:
            return None
        return self._step.store.arrays("neurons", method, step - 1, index)

    def _given_before(self, before: Mapping[str, NDArray[Any]] | None) -> NDArray[Any]:
        """Columns of down that differ from the dense ones before this step."""
        if before is None or not self._step.strategy.starts_from_pruned:
            return np.zeros(0, np.int64)
        return before["columns"]


@dataclass
class NeuronStep(Step):
    """`Step` with neurons: chosen, stored, recorded and propagated in place of a mask."""

    def _outcome(self, index: int) -> ThinningOutcome:
        return ThinningOutcome(self, index)


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
        bytes=parameters * stored_size.VALUE_BITS // 8,
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
