"""Where the windows' hidden states lie between two blocks: in memory, or in a mapped temporary file."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from copal_core.checkpoints import residence
from copal_core.checkpoints.placement import free_bytes
from copal_core.errors import RunError
from copal_core.system.paths import cache_root


class Activations:
    """Keeps the hidden states of batches of windows, (windows, length, hidden) each, and takes new ones.

    A batch that computes on a GPU comes back to wherever its place is.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, device: torch.device
    ) -> None:
        """shapes: of all batches. The bytes they take together decide where they lie."""
        self._device = device
        size = dtype.itemsize * sum(count * length * hidden for count, length, hidden in shapes)
        self._on_device = residence.keeps_activations(size, free_bytes(device))
        in_memory = self._on_device or (
            device.type != "cpu" and residence.keeps_activations(size, residence.memory_budget("cpu"))
        )
        self._file = None if in_memory else SpillFile(size + mmap.PAGESIZE * len(shapes))

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def place(self, hidden: Tensor) -> Tensor:
        """Keep a batch for the first time; returns what keeps it."""
        if self._on_device:
            return hidden
        if self._file is None:
            return hidden.cpu()
        kept = self._file.tensor(tuple(hidden.shape), hidden.dtype)
        return self.replace(kept, hidden)

    def replace(self, kept: Tensor, hidden: Tensor) -> Tensor:
        """Put newer hidden states in the place of a batch; returns what keeps them."""
        if self._on_device:
            return hidden
        kept.copy_(hidden)
        self.settle(kept)
        return kept

    def settle(self, kept: Tensor) -> None:
        """A batch has been read and is not needed for now."""
        if self._file is not None:
            self._file.settle(kept)


class SpillFile:
    """Tensors in a temporary file that has no name, so that nothing of it outlasts the process."""

    def __init__(self, size: int) -> None:
        """size: bytes, reserved at once. Raises RunError when the disk does not have them."""
        folder = cache_root()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(
                        file.fileno(), 0, size
                    )  # a full disk shows here, not in a mapped write
                else:
                    file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise RunError(
                f"the windows' activations need {size / 1e9:.1f} GB of disk in '{folder}' ({error.strerror}); "
                "free some space, or use fewer windows"
            ) from error
        self._end = 0
        self._places: dict[int, tuple[int, int]] = {}  # address -> first byte and size

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A new tensor whose bytes lie in the file."""
        count = 1
        for length in shape:
            count *= length
        found = torch.frombuffer(self._map, dtype=dtype, count=count, offset=self._end).view(shape)
        self._places[found.data_ptr()] = (self._end, found.nbytes)
        self._end += -(-found.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        return found

    def settle(self, tensor: Tensor) -> None:
        """Let the tensor's bytes leave this process's memory; the file has them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin, size = self._places[tensor.data_ptr()]
            self._map.madvise(mmap.MADV_DONTNEED, begin, size)
