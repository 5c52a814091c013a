"""Factors of low rank, or a hybrid's masks, in place of a block's weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from copal_core.checkpoints.backbone import Backbone
from copal_core.checkpoints.layout import module_name
from copal_core.compression.artifact import Artifact, Place, Timed, arrays_of
from copal_core.compression.pruning import Weights, filled
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Choice, Decomposition, Factors, Masked, relative_error
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.store.records import FactorRecord, Record, WarningRecord
from copal_core.store.run_store import RunStore
from copal_core.system import files
from copal_core.system.torch_settings import exact_products, one_thread

if TYPE_CHECKING:
    from copal_core.compression.step import Step


LOADER = """from safetensors.torch import load_file
from copal_core.methods.factored.modules import install
install(model, load_file("factors/factors.safetensors"))"""


@dataclass
class FactorisedBlock:
    """weights: projection -> (out, in), as they come out of the 16 bits that are stored."""

    weights: Weights = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)  # rounded to 16 bits; a dense layer has none

    def take(self, name: str, weight: Tensor, choice: Choice) -> None:
        """Take in what was chosen for one projection, as it will be stored. weight: (out, in) before."""
        found = choice.result
        if isinstance(found, Masked) and bool(found.kept.all()):
            self.weights[name] = weight
        elif isinstance(found, Masked):
            self.choices[name] = choice
            values = weight.float() if found.values is None else found.values
            self.weights[name] = values * found.kept
        elif found.parameters >= weight.numel():
            self.weights[name] = weight  # nothing is stored larger than it was
        else:
            stored = found.in_half()
            self.choices[name] = Choice(stored, choice.output_error, choice.alternative_error)
            self.weights[name] = stored.left.float() @ stored.right.float()

    def save(self, store: RunStore, place: Place) -> None:
        """Write factors, masks and updated values. place: method, step and block."""
        factors: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for name, choice in self.choices.items():
            if isinstance(choice.result, Factors):
                factors |= {f"{name}.left": choice.result.left, f"{name}.right": choice.result.right}
            else:
                kept[name] = choice.result.kept
                if choice.result.values is not None:
                    values[name] = choice.result.values[choice.result.kept].float()
        if kept:
            store.save_masks(*place, arrays_of(kept))
        if values:
            store.save_arrays("weights", *place, arrays_of(values))
        # written in every case: its presence says that the block is a low-rank method's
        store.save_arrays("factors", *place, arrays_of(factors) or {"none": np.zeros(0, np.float16)})

    def records(self, place: Place, name: str, weight: Tensor, gram: Tensor | None) -> list[Record]:
        """Record one projection, and its warnings. weight: (out, in) before; gram: (in, in) to measure with."""
        choice = self.choices.get(name)
        result = choice.result if choice else None
        rows, columns = weight.shape
        error = None if gram is None else relative_error(weight.float(), self.weights[name].float(), gram)
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


class FactorArtifact(Artifact[Decomposition]):
    """Factors, or a hybrid's masks, in place of a mask."""

    on_disk = (
        "Factors are multiplied out and removed weights are zeros, in dense matrices: the files are as large as "
        "before, and no faster to run. The factors are in `factors/`, where there are any. To run with them, load "
        f"this checkpoint as `model`, then:\n\n```python\n{LOADER}\n```\n"
    )

    def __init__(self, step: Step, index: int) -> None:
        super().__init__(step, index)
        self._found = FactorisedBlock()
        self._records: list[Record] = []

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        with timed("select"), exact_products():
            structure = self._store.config.structure
            for name, choice in self._compressor.decompose_group(base, used, structure).items():
                self._found.take(name, base[name], choice)
        with timed("record"), one_thread():
            gram = newest.mean("input_gram") if "input_gram" in newest.totals else None
            for name, weight in base.items():
                self._records += self._found.records(self._place, name, weight, gram)

    def finish(self) -> list[Record]:
        with one_thread():
            self._found.save(self._store, self._place)
        return self._records

    def weights(self, base: Weights) -> Weights:
        return self._found.weights

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
        """Write the weights, and factors/factors.safetensors where the method has any."""
        super().export(store, method, step, backbone, folder)
        if factors := stored_factors(store, method, step):
            files.write_arrays(folder / "factors" / "factors.safetensors", factors)


def stored_factors(store: RunStore, method: str, step: int) -> files.Arrays:
    """Read the factors of all layers after `step`, as `methods.factored.modules.install` takes them.

    Returns:
        'MODULE.left' (out, r) and 'MODULE.right' (r, in), 16-bit floats; nothing for a method without factors.
    """
    found: files.Arrays = {}
    for block in range(store.info["checkpoint"]["blocks"]):
        if store.has_arrays("factors", method, step, block):
            for key, array in store.arrays("factors", method, step, block).items():
                projection, _, side = key.partition(".")
                if side:  # an empty entry stands for a block without factors
                    found[f"{module_name(block, projection)}.{side}"] = array
    return found
