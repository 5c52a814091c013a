"""Readers that bring a decoder block to its device while the previous block is still computing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from copal_core.checkpoints.weights import WeightFiles

_ALIGNED = 512  # bytes; alignment of tensors in the page-locked buffer


def prefix_of(index: int) -> str:
    """Return the common prefix of the names of a decoder block's tensors."""
    return f"model.layers.{index}."


class BlockReader(ABC):
    """Reads the tensors of decoder blocks, keyed by their name within the block."""

    def __init__(self, files: WeightFiles, dtype: torch.dtype) -> None:
        self.files = files
        self.dtype = dtype
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")

    @abstractmethod
    def read_ahead(self, index: int) -> None:
        """Begin to read the block that is needed next; return immediately."""

    @abstractmethod
    def take(self, index: int, keep: bool) -> dict[str, Tensor]:
        """Return the block's tensors, ready to compute with.

        Args:
            index: of the block.
            keep: the tensors will stay in memory, and are converted to the dtype of the computation.

        Raises:
            CheckpointError: a file is damaged.
        """

    def release(self, index: int) -> None:
        """Free the memory of a block that is not needed for now."""
        self.files.release(prefix_of(index))


class MappedReader(BlockReader):
    """Reader for the CPU: tensors are views of the file, whose pages the system reads ahead.

    Weights of a streamed block stay in their stored dtype if it is narrower than that of the computation, and are
    widened one layer at a time in use (see `backbone.CastLinear`): such a block needs no memory of its own.
    """

    def read_ahead(self, index: int) -> None:
        self._thread.submit(self.files.prefetch, prefix_of(index))

    def take(self, index: int, keep: bool) -> dict[str, Tensor]:
        tensors = {}
        for header in self.files.headers(prefix_of(index)):
            stored = self.files.view(header.name)
            narrower = stored.is_floating_point() and stored.itemsize < self.dtype.itemsize
            widened_in_use = not keep and narrower and stored.dim() == 2
            name = header.name.removeprefix(prefix_of(index))
            tensors[name] = stored if widened_in_use else stored.to(self.dtype)
            if keep and tensors[name] is not stored:
                self.files.release(header.name)
        return tensors


class PinnedReader(BlockReader):
    """Reader for a GPU: copies through a page-locked buffer on a stream of its own, in parallel to the computation.

    On another device the same steps run in sequence, which is how they are tested without a GPU.
    """

    def __init__(self, files: WeightFiles, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(files, dtype)
        self._device = device
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._pending: tuple[int, Future[dict[str, Tensor]]] | None = None

    def read_ahead(self, index: int) -> None:
        if self._pending is None or self._pending[0] != index:
            self._pending = (index, self._thread.submit(self._copy, index))

    def take(self, index: int, keep: bool) -> dict[str, Tensor]:
        self.read_ahead(index)  # does nothing if the block is already being read
        pending, self._pending = self._pending, None
        if pending is None:
            raise RuntimeError("a block was requested but is not being read")
        tensors = pending[1].result()
        if self._stream is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._stream)
            for tensor in tensors.values():
                tensor.record_stream(computing)  # so that its memory is not reused before that stream is done
        return tensors

    def release(self, index: int) -> None:
        """Do nothing: the pages were released as soon as they were copied."""

    def _copy(self, index: int) -> dict[str, Tensor]:
        headers = self.files.headers(prefix_of(index))
        if self._stream is not None:
            self._stream.synchronize()  # the previous block's copies have left the buffer
        self._reserve(sum(_padded(header.end - header.begin) for header in headers))
        tensors, start = {}, 0
        with torch.cuda.stream(self._stream):  # without a stream this has no effect
            for header in headers:
                stored = self.files.view(header.name)
                pinned = self._buffer[start : start + stored.nbytes].view(stored.dtype).view(stored.shape)
                pinned.copy_(stored)
                tensors[header.name.removeprefix(prefix_of(index))] = self._to_device(pinned)
                start += _padded(stored.nbytes)
        self.files.release(prefix_of(index))
        return tensors

    def _to_device(self, pinned: Tensor) -> Tensor:
        copied = pinned.to(self._device, non_blocking=True) if self._cuda else pinned.clone()
        return copied.to(self.dtype)

    def _reserve(self, size: int) -> None:
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda)


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
