"""Storage of the windows' hidden states between two blocks: in memory, or in a mapped temporary file."""

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
    """Stores the hidden states of batches of windows, each (windows, length, hidden).

    They stay on the device if they fit into a share of its memory, else in the main memory, else in a file.

    Args:
        shapes: of all batches; their total size decides where they are stored.
        dtype: of the hidden states.
        device: on which the blocks compute.

    Raises:
        RunError: they need a file and the disk is too full.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, device: torch.device
    ) -> None:
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

    def store(self, hidden: Tensor) -> Tensor:
        """Store a new batch and return the tensor that holds it."""
        if self._on_device:
            return hidden
        if self._file is None:
            return hidden.cpu()
        stored = self._file.tensor(tuple(hidden.shape), hidden.dtype)
        return self.replace(stored, hidden)

    def replace(self, stored: Tensor, hidden: Tensor) -> Tensor:
        """Overwrite a stored batch with newer hidden states and return the tensor that holds them."""
        if self._on_device:
            return hidden
        stored.copy_(hidden)
        self.release(stored)
        return stored

    def release(self, stored: Tensor) -> None:
        """Free the memory of a batch in the file that is not needed for now."""
        if self._file is not None:
            self._file.release(stored)


class SpillFile:
    """Tensors in a temporary file without a name, which therefore disappears with the process.

    Args:
        size: of the file in bytes, allocated at once.

    Raises:
        RunError: the disk is too full.
    """

    def __init__(self, size: int) -> None:
        folder = cache_root()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                if hasattr(os, "posix_fallocate"):
                    # allocated now, so that a full disk is an error here and not a crash in a mapped write
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise RunError(
                f"the windows' activations need {size / 1e9:.1f} GB of disk in '{folder}' ({error.strerror}); "
                "free some space, or use fewer windows"
            ) from error
        self._end = 0
        self._ranges: dict[int, tuple[int, int]] = {}  # address -> first byte and size

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Allocate a tensor in the file."""
        count = 1
        for length in shape:
            count *= length
        tensor = torch.frombuffer(self._map, dtype=dtype, count=count, offset=self._end).view(shape)
        self._ranges[tensor.data_ptr()] = (self._end, tensor.nbytes)
        self._end += -(-tensor.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        return tensor

    def release(self, tensor: Tensor) -> None:
        """Drop the tensor's pages from this process's memory; the file still holds them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            begin, size = self._ranges[tensor.data_ptr()]
            self._map.madvise(mmap.MADV_DONTNEED, begin, size)
