"""Factors of low rank, or a hybrid's masks, in place of a block's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import GROUPS, module_name
from copal_core.compression.artifact import Artifact, Place, Timed, arrays_of
from copal_core.compression.pruning import Weights, filled
from copal_core.config import Structure
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Choice, Decomposition, Factors, Masked, relative_error
from copal_core.statistics.accumulators import BlockStatistics, GroupStatistics
from copal_core.store.records import FactorRecord, Record, WarningRecord
from copal_core.store.run_store import RunStore
from copal_core.system import files
from copal_core.system.precision import exact_products
from copal_core.system.threads import one_thread

if TYPE_CHECKING:
    from copal_core.compression.step import Step


@dataclass
class FactorisedBlock:
    """weights: projection -> (out, in), as they come out of the 16 bits that are stored."""

    weights: Weights = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)  # rounded to 16 bits; a dense layer has none


def factorise_block(
    decomposition: Decomposition,
    base: Mapping[str, Tensor],
    statistics: BlockStatistics,
    structure: Structure,
) -> FactorisedBlock:
    """Compute factors (or a hybrid's masks) of every projection. base: projection -> (out, in)."""
    block = FactorisedBlock()
    for group, names in GROUPS.items():
        gathered = statistics.groups.get(group, GroupStatistics())
        factorise_group(decomposition, {name: base[name] for name in names}, gathered, structure, block)
    return block


def factorise_group(
    decomposition: Decomposition,
    weights: Mapping[str, Tensor],
    statistics: GroupStatistics,
    structure: Structure,
    block: FactorisedBlock,
) -> None:
    """Add the projections that read one input to `block`. weights: projection -> (out, in)."""
    for name, choice in decomposition.decompose_group(weights, statistics, structure).items():
        weight, found = weights[name], choice.result
        if isinstance(found, Masked) and bool(found.kept.all()):
            block.weights[name] = weight
        elif isinstance(found, Masked):
            block.choices[name] = choice
            values = weight.float() if found.values is None else found.values
            block.weights[name] = values * found.kept
        elif found.parameters >= weight.numel():
            block.weights[name] = weight  # nothing is stored larger than it was
        else:
            stored = found.in_half()
            block.choices[name] = Choice(stored, choice.output_error, choice.alternative_error)
            block.weights[name] = stored.left.float() @ stored.right.float()


class FactorArtifact(Artifact[Decomposition]):
    """Factors, or a hybrid's masks, in place of a mask."""

    on_disk = (
        "Factors are multiplied out and removed weights are zeros, in dense matrices: the files are as large as "
        "before, and no faster to run. The factors are in `factors/`, where there are any."
    )

    def __init__(self, step: Step, index: int) -> None:
        super().__init__(step, index)
        self._found = FactorisedBlock()
        self._records: list[Record] = []

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        with timed("select"), exact_products():
            factorise_group(self._compressor, base, used, self._store.config.structure, self._found)
        with timed("record"), one_thread():
            gram = newest.mean("input_gram") if "input_gram" in newest.totals else None
            for name, weight in base.items():
                self._records += _records(self._place, name, weight, self._found, gram)

    def finish(self) -> list[Record]:
        with one_thread():
            self._save()
        return self._records

    def weights(self, base: Weights) -> Weights:
        return self._found.weights

    def _save(self) -> None:
        factors: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for name, choice in self._found.choices.items():
            if isinstance(choice.result, Factors):
                factors |= {f"{name}.left": choice.result.left, f"{name}.right": choice.result.right}
            else:
                kept[name] = choice.result.kept
                if choice.result.values is not None:
                    values[name] = choice.result.values[choice.result.kept].float()
        store, place = self._store, self._place
        if kept:
            store.save_masks(*place, arrays_of(kept))
        if values:
            store.save_arrays("weights", *place, arrays_of(values))
        # written in every case: its presence says that the block is a low-rank method's
        store.save_arrays("factors", *place, arrays_of(factors) or {"none": np.zeros(0, np.float16)})

    @classmethod
    def restore(cls, store: RunStore, place: Place, dense: Weights, dtype: torch.dtype) -> Weights:
        """Return factors multiplied out, masked weights, and dense ones where neither is smaller."""
        factors = store.arrays("factors", *place)
        masks = store.masks(*place) if store.has_arrays("masks", *place) else {}
        values = store.arrays("weights", *place) if store.has_arrays("weights", *place) else {}
        weights = {}
        for name, weight in dense.items():
            full = weight
            if f"{name}.left" in factors:
                left, right = (
                    torch.from_numpy(factors[f"{name}.{side}"]).float() for side in ("left", "right")
                )
                full = left @ right
            elif name in values:
                full = filled(torch.from_numpy(masks[name]), torch.from_numpy(values[name]))
            elif name in masks:
                full = weight * torch.from_numpy(masks[name]).to(weight.device)
            weights[name] = full if full is weight else full.to(weight.device, dtype)
        return weights

    @classmethod
    def files(cls, compressor: Decomposition, store: RunStore, place: Place) -> tuple[str, ...]:
        chosen = "SELECT 1 FROM factors WHERE method = ? AND step = ? AND block = ? AND kind = 'mask' LIMIT 1"
        return ("factors", "masks") if store.records.rows(chosen, place) else ("factors",)

    @classmethod
    def export(cls, store: RunStore, method: str, step: int, backbone: Backbone, folder: Path) -> None:
        """Write the weights, and factors/factors.safetensors where the method has any.

        The model loaded from `folder` runs with them by install(model, load_file("factors/factors.safetensors")), with
        `install` of copal_core.methods.factored.modules.
        """
        super().export(store, method, step, backbone, folder)
        found: files.Arrays = {}
        for block in range(backbone.depth):
            for key, array in store.arrays("factors", method, step, block).items():
                projection, _, side = key.partition(".")
                if side:  # an empty entry stands for a block without factors
                    found[f"{module_name(block, projection)}.{side}"] = array
        if found:
            files.write_arrays(folder / "factors" / "factors.safetensors", found)


def _records(
    place: Place, name: str, weight: Tensor, found: FactorisedBlock, gram: Tensor | None
) -> list[Record]:
    choice = found.choices.get(name)
    result = choice.result if choice else None
    rows, columns = weight.shape
    error = None if gram is None else relative_error(weight.float(), found.weights[name].float(), gram)
    kind, rank, parameters = "dense", min(rows, columns), rows * columns
    size = stored_size.dense_bytes(rows, columns)
    if isinstance(result, Factors):
        kind, rank, parameters, size = "rank", result.rank, result.parameters, result.bytes
    elif isinstance(result, Masked):
        kind, rank, parameters, size = "mask", 0, result.parameters, result.bytes
    record = FactorRecord(
        *place,
        projection=name,
        kind=kind,
        rows=rows,
        columns=columns,
        rank=rank,
        parameters=parameters,
        bytes=size,
        output_error=error,
        alternative_error=choice.alternative_error if choice else None,
        damping=result.damping if isinstance(result, Factors) else 0.0,
        discarded_energy=result.discarded_energy if isinstance(result, Factors) else 0.0,
    )
    warnings = result.warnings if result is not None else {}
    return [record, *(WarningRecord(*place, name, kind, message) for kind, message in warnings.items())]
