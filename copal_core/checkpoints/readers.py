"""Bringing one decoder block to where it computes, while the block before it is still computing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from copal_core.checkpoints.weights import WeightFiles

_ALIGNED = 512  # bytes; where each tensor begins in the page-locked buffer


def prefix_of(index: int) -> str:
    """How the names of a decoder block's tensors begin."""
    return f"model.layers.{index}."


class BlockReader(ABC):
    """Tensors of decoder blocks, keyed by their name within the block."""

    def __init__(self, files: WeightFiles, dtype: torch.dtype) -> None:
        self.files = files
        self.dtype = dtype
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")

    @abstractmethod
    def ahead(self, index: int) -> None:
        """Begin to read a block that is needed next; returns at once."""

    @abstractmethod
    def take(self, index: int, keep: bool) -> dict[str, Tensor]:
        """The block's tensors, ready to compute with. keep: they will stay. Raises CheckpointError."""

    def let_go(self, index: int) -> None:
        """The block has been visited and is not needed for now."""
        self.files.release(prefix_of(index))


class MappedReader(BlockReader):
    """For the processor: tensors are views of the file, whose pages the system reads ahead.

    Weights that are stored narrower than they compute stay as they are stored while the block visits, and
    are widened one layer at a time where they are used (see `backbone.CastLinear`): a block then takes no
    memory of its own.
    """

    def ahead(self, index: int) -> None:
        self._thread.submit(self.files.prefetch, prefix_of(index))

    def take(self, index: int, keep: bool) -> dict[str, Tensor]:
        found = {}
        for header in self.files.headers(prefix_of(index)):
            tensor = self.files.view(header.name)
            narrower = tensor.is_floating_point() and tensor.itemsize < self.dtype.itemsize
            widened_in_use = not keep and narrower and tensor.dim() == 2
            name = header.name.removeprefix(prefix_of(index))
            found[name] = tensor if widened_in_use else tensor.to(self.dtype)
            if keep and found[name] is not tensor:
                self.files.release(header.name)
        return found


class PinnedReader(BlockReader):
    """For a GPU: through a page-locked buffer and a stream of its own, so that copying and computing overlap.

    On another device the same steps run one after another, which is how they are tested without a GPU.
    """

    def __init__(self, files: WeightFiles, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(files, dtype)
        self._device = device
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._pending: tuple[int, Future[dict[str, Tensor]]] | None = None

    def ahead(self, index: int) -> None:
        if self._pending is None or self._pending[0] != index:
            self._pending = (index, self._thread.submit(self._copy, index))

    def take(self, index: int, keep: bool) -> dict[str, Tensor]:
        self.ahead(index)  # nothing new when it is under way
        pending, self._pending = self._pending, None
        if pending is None:
            raise RuntimeError("a block was asked for and is not under way")
        found = pending[1].result()
        if self._stream is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_stream(self._stream)
            for tensor in found.values():
                tensor.record_stream(computing)  # its memory is free once that stream is done with it
        return found

    def let_go(self, index: int) -> None:
        """The pages were let go of as soon as they were copied."""

    def _copy(self, index: int) -> dict[str, Tensor]:
        headers = self.files.headers(prefix_of(index))
        if self._stream is not None:
            self._stream.synchronize()  # the copies of the block before have left the buffer
        self._reserve(sum(_room(header.end - header.begin) for header in headers))
        found, start = {}, 0
        with torch.cuda.stream(self._stream):  # no stream, no effect
            for header in headers:
                tensor = self.files.view(header.name)
                place = self._buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                place.copy_(tensor)
                found[header.name.removeprefix(prefix_of(index))] = self._moved(place)
                start += _room(tensor.nbytes)
        self.files.release(prefix_of(index))
        return found

    def _moved(self, place: Tensor) -> Tensor:
        there = place.to(self._device, non_blocking=True) if self._cuda else place.clone()
        return there.to(self.dtype)

    def _reserve(self, size: int) -> None:
        if self._buffer.numel() < size:
            self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda)


def _room(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
