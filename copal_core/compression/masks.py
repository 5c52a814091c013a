"""Masks of a block, and the weights that a criterion updates: stored, recorded and put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from copal_core.compression.artifact import Artifact, Place, Timed, arrays_of
from copal_core.compression.pruning import Weights, filled, masked, mean_scores, prune_parts
from copal_core.compression.recording import BlockRecorder
from copal_core.methods.criterion import Criterion
from copal_core.statistics.accumulators import GroupStatistics
from copal_core.store.records import Record
from copal_core.store.run_store import RunStore
from copal_core.system.torch_settings import one_thread

if TYPE_CHECKING:
    from copal_core.compression.step import Step


class MaskArtifact(Artifact[Criterion]):
    """Masks, and the weights that a criterion updates."""

    on_disk = (
        "Removed weights are zeros in dense matrices: the files are as large as before, and no faster to run."
    )

    def __init__(self, step: Step, index: int) -> None:
        super().__init__(step, index)
        self._recorder = BlockRecorder(step.store, step.backbone.config, *self._place)
        self._kept: Weights = {}
        self._updated: Weights = {}

    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        criterion, structure = self._compressor, self._store.config.structure
        means = None
        if used is not newest:
            with timed("record"), one_thread():
                means = mean_scores(criterion, base, newest)
        parts = prune_parts(criterion, base, used, structure)
        while True:
            with timed("select"):
                part = next(parts, None)
            if part is None:
                return
            with timed("record"), one_thread():
                self._recorder.add(part, means)
            self._kept |= part.kept
            self._updated |= part.weights
            del part  # its scores, before those of the next

    def finish(self) -> list[Record]:
        with one_thread():
            self._store.save_masks(*self._place, arrays_of(self._kept))
            if self._updated:  # besides the mask: the kept values in order, float32
                values = {name: weight[self._kept[name]].float() for name, weight in self._updated.items()}
                self._store.save_arrays("weights", *self._place, arrays_of(values))
            return self._recorder.records()

    def weights(self, base: Weights) -> Weights:
        return self._updated or masked(base, self._kept)

    @classmethod
    def restore(cls, store: RunStore, place: Place, dense: Weights, dtype: torch.dtype) -> Weights:
        masks = {name: torch.from_numpy(mask) for name, mask in store.masks(*place).items()}
        if cls._keeps_numbers(store, place):
            return {name: weight * masks[name].to(weight.device) for name, weight in dense.items()}
        values = store.arrays("weights", *place)
        return {
            name: filled(masks[name], torch.from_numpy(values[name])).to(weight.device, dtype)
            for name, weight in dense.items()
        }

    @classmethod
    def files(cls, compressor: Criterion, store: RunStore, place: Place) -> tuple[str, ...]:
        return ("masks",) if compressor.by_row else ("masks", "weights")

    @classmethod
    def _keeps_numbers(cls, store: RunStore, place: Place) -> bool:
        return not store.has_arrays("weights", *place)
