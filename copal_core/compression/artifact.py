"""The result of a method for one decoder block: compressed group by group, stored, and restored.

Each kind has one class: masks, factors and neurons. Everything that depends on the kind stands there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from torch import Tensor, nn

from copal_core.checkpoints.backbone import Backbone, compute_dtype, linears
from copal_core.checkpoints.writer import write_checkpoint
from copal_core.compression.pruning import Weights
from copal_core.methods.build import Compressor
from copal_core.store.records import Record
from copal_core.store.run_store import RunStore

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from copal_core.compression.step import Step
    from copal_core.statistics.accumulators import GroupStatistics

C = TypeVar("C", bound=Compressor)
Place = tuple[str, int, int]  # method, step, block
Timed = Callable[[str], AbstractContextManager[None]]  # counts the seconds of a phase


class Artifact(ABC, Generic[C]):
    """One block after one step of one method.

    on_disk: how an exported checkpoint of this kind lies on disk, in words.
    """

    on_disk: ClassVar[str]

    def __init__(self, step: Step, index: int) -> None:
        self._compressor = cast(C, step.compressor)
        self._step, self._store = step, step.store
        self._place: Place = (str(step.method), step.step, index)

    @abstractmethod
    def add(self, base: Weights, used: GroupStatistics, newest: GroupStatistics, timed: Timed) -> None:
        """Compress the projections of one group.

        Args:
            base: projection -> (out, in), as they are scored.
            used: the statistics that the strategy gives.
            newest: those of this step's domain alone.
            timed: counts the seconds of a phase.
        """

    @abstractmethod
    def finish(self) -> list[Record]:
        """Write what later steps need of the block, and return its records."""

    @abstractmethod
    def weights(self, base: Weights) -> Weights:
        """Return projection -> (out, in) as the block computes from here on."""

    @classmethod
    @abstractmethod
    def restore(cls, store: RunStore, place: Place, dense: Weights, dtype: torch.dtype) -> Weights:
        """Return projection -> (out, in) as `finish` left them, from the store and the dense weights."""

    @classmethod
    @abstractmethod
    def files(cls, compressor: C, store: RunStore, place: Place) -> tuple[str, ...]:
        """Return the kinds of files without which a finished block is not what its records say."""

    @classmethod
    def variant(cls, store: RunStore, method: str, step: int) -> Callable[[int, nn.Module], Weights]:
        """Return a function that restores the weights of a block, by its index, after `step`."""
        return lambda index, block: cls.restore(
            store, (method, step, index), dense_weights(block), compute_dtype(block)
        )

    @classmethod
    def export(cls, store: RunStore, method: str, step: int, backbone: Backbone, folder: Path) -> None:
        """Write the compressed model's weights as a checkpoint into `folder`."""
        lossless = cls._keeps_numbers(store, (method, step, 0))
        write_checkpoint(backbone, folder, cls.variant(store, method, step), lossless=lossless)

    @classmethod
    def _keeps_numbers(cls, store: RunStore, place: Place) -> bool:
        """Tell whether weights are either removed or the checkpoint's own numbers."""
        return False


def dense_weights(block: nn.Module) -> Weights:
    """Return projection -> (out, in), views of the block's own weights."""
    return {name: layer.weight.data for name, layer in linears(block).items()}


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return the same values as numpy arrays, for the store."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
