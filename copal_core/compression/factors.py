"""One step of a low-rank method: the same pass as for masks, with factors where a mask would be."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from copal_core.compression.masks import Weights
from copal_core.compression.restore import arrays_of
from copal_core.compression.step import Step, Timed
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Choice, Decomposition, Factors, Masked, relative_error
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.store.records import FactorRecord, Record, WarningRecord
from copal_core.store.run_store import RunStore
from copal_core.system.precision import exact_products
from copal_core.system.threads import one_thread


@dataclass
class ApproximatedBlock:
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

    def save(self, store: RunStore, place: tuple[str, int, int]) -> None:
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

    def records(
        self, place: tuple[str, int, int], name: str, weight: Tensor, gram: Tensor | None
    ) -> list[Record]:
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


class ApproximatingOutcome:
    """Factors, or a hybrid's masks, in place of a mask."""

    def __init__(self, step: Step, index: int) -> None:
        if not isinstance(step.criterion, Decomposition):
            raise TypeError(f"{step.criterion} is no decomposition")
        self._decomposition = step.criterion
        self._store = step.store
        self._place = (str(step.method), step.step, index)
        self._found = ApproximatedBlock()
        self._records: list[Record] = []

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        with timed("select"), exact_products():
            structure = self._store.config.structure
            for name, choice in self._decomposition.decompose_group(base, used, structure).items():
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


@dataclass
class LowRankStep(Step):
    """`Step` with factors: stored, recorded and propagated in place of a mask."""

    def _outcome(self, index: int) -> ApproximatingOutcome:
        return ApproximatingOutcome(self, index)
