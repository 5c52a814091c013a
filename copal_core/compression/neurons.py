"""Whole hidden neurons of a block removed, where masks would remove weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import GROUP_OF
from copal_core.checkpoints.writer import write_checkpoint
from copal_core.compression.artifact import Artifact, Place, Timed, arrays_of
from copal_core.compression.pruning import Weights
from copal_core.methods import stored_size
from copal_core.methods.decomposition import relative_error
from copal_core.methods.neuron_removal import width_after, without_neurons
from copal_core.methods.neuron_selector import (
    NeuronSelector,
    Selection,
    changed_columns,
    removed_weights,
)
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.store.records import NeuronRecord, Record, WarningRecord
from copal_core.store.run_store import RunStore
from copal_core.system.torch_settings import exact_products, one_thread

if TYPE_CHECKING:
    from copal_core.compression.step import Step


def remove_neurons(
    selector: NeuronSelector,
    base: Mapping[str, Tensor],
    statistics: BlockStatistics,
    generator: torch.Generator,
) -> tuple[Weights, Selection]:
    """Remove neurons of one block.

    Args:
        selector: chooses them.
        base: projection -> (out, in) weights as they are before.
        statistics: of the block.
        generator: of this block, for what is left to chance.

    Returns:
        projection -> (out, in), zero for removed neurons, and the choice.
    """
    selection = selector.select(base, statistics, generator)
    return {**base, **removed_weights(base, selection)}, selection


class NeuronArtifact(Artifact[NeuronSelector]):
    """Whole neurons, chosen once the statistics of the whole block are there."""

    on_disk = (
        "The removed neurons are taken out: the feed-forward layers are smaller, and as dense as before."
    )
    _selection: Selection

    def __init__(self, step: Step, index: int) -> None:
        super().__init__(step, index)
        self._base: Weights = {}
        self._used, self._newest = BlockStatistics(), BlockStatistics()
        self._weights: Weights = {}

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        self._base |= base
        group = GROUP_OF[next(iter(base))]
        self._used.groups[group], self._newest.groups[group] = used, newest
        if len(self._base) < len(GROUP_OF):
            return
        seed = self._store.config.protocol.seed * 1_000_003 + self._place[2]
        with timed("select"), exact_products():
            generator = torch.Generator().manual_seed(seed)
            found = remove_neurons(self._compressor, self._base, self._used, generator)
            self._weights, self._selection = found

    def finish(self) -> list[Record]:
        before = self._before()
        with one_thread():
            arrays = _arrays(self._weights["down_proj"], self._selection, self._given_before(before))
            self._store.save_arrays("neurons", *self._place, arrays)
            kept = None if before is None else before["kept"]
            down = self._base["down_proj"], self._weights["down_proj"]
            return _records(self._place, *down, self._selection, kept, _gram(self._newest))

    def weights(self, base: Weights) -> Weights:
        return self._weights

    def _before(self) -> Mapping[str, NDArray[Any]] | None:
        """Return what the step before stored of this block; None at the first."""
        method, step, index = self._place
        if step == self._store.config.first_step:
            return None
        return self._store.arrays("neurons", method, step - 1, index)

    def _given_before(self, before: Mapping[str, NDArray[Any]] | None) -> NDArray[Any]:
        """Return the columns of down that differ from the dense ones before this step."""
        if before is None or not self._step.strategy.starts_from_pruned:
            return np.zeros(0, np.int64)
        return before["columns"]

    @classmethod
    def restore(cls, store: RunStore, place: Place, dense: Weights, dtype: torch.dtype) -> Weights:
        """Return zero rows of gate and up, zero columns of down, and columns that took over."""
        arrays, device = store.arrays("neurons", *place), dense["down_proj"].device
        kept = torch.from_numpy(arrays["kept"]).to(device)
        down = dense["down_proj"].float() * kept  # (hidden, d_ff)
        down[:, torch.from_numpy(arrays["columns"]).to(device)] = torch.from_numpy(arrays["down"]).to(device)
        rows = {name: dense[name] * kept[:, None] for name in ("gate_proj", "up_proj")}
        return {**dense, **rows, "down_proj": down.to(dtype)}

    @classmethod
    def files(cls, compressor: NeuronSelector, store: RunStore, place: Place) -> tuple[str, ...]:
        return ("neurons",)

    @classmethod
    def export(cls, store: RunStore, method: str, step: int, backbone: Backbone, folder: Path) -> None:
        """Write the weights without the removed neurons."""
        blocks = range(backbone.depth)
        kept = [torch.from_numpy(store.arrays("neurons", method, step, block)["kept"]) for block in blocks]
        width, weights_of = width_after(kept), cls.variant(store, method, step)

        def taken_out(index: int, block: nn.Module) -> Weights:
            return without_neurons(block, weights_of(index, block), kept[index], width)

        write_checkpoint(backbone, folder, taken_out, lossless=False, intermediate_size=width)


def _arrays(weight: Tensor, selection: Selection, given_before: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return kept neurons, the pairs, and the columns of down (hidden, d_ff) that are no longer the dense ones."""
    columns = torch.cat([changed_columns(selection), torch.from_numpy(given_before)]).unique()
    columns = columns[selection.kept[columns]]
    tensors = {
        "kept": selection.kept,
        "removed": selection.removed,
        "twins": selection.twins,
        "information": selection.information,
        "coefficients": selection.coefficients,
        "columns": columns,
        "down": weight[:, columns.to(weight.device)].float(),
    }
    return arrays_of(tensors)


def _gram(newest: BlockStatistics) -> Tensor | None:
    group = newest.groups.get("mlp_output")
    return group.mean("input_gram") if group is not None and "input_gram" in group.totals else None


def _records(
    place: Place,
    dense: Tensor,
    pruned: Tensor,
    selection: Selection,
    before: NDArray[np.bool_] | None,
    gram: Tensor | None,
) -> list[Record]:
    """Count what went. dense, pruned: down (hidden, d_ff) as it was scored and as it is now."""
    kept = selection.kept.numpy()
    hidden, neurons = dense.shape
    parameters = 3 * hidden * int(kept.sum())
    shared = selection.information[~selection.information.isnan()]
    error = None if gram is None else relative_error(dense.float(), pruned.float(), gram)
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
