"""Memory-mapped access to the tensors of a checkpoint folder, in one or many safetensors files.

A tensor's pages are read on first use and can be released again, so that a model larger than the memory can be
processed part by part. The files are never written to.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from copal_core.checkpoints.headers import TensorHeader, read_tensors
from copal_core.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_COPIED_AT_ONCE = 64 * 2**20  # bytes
_READ_AHEAD = 8 * 2**20  # bytes per read on systems without a call for reading ahead


class WeightFiles:
    """Tensors of a folder by name; only headers are read until a tensor is accessed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # without the rotary tables of old checkpoints, which follow from the configuration
        self._tensors = {n: t for n, t in read_tensors(folder).items() if "rotary_emb" not in n}
        self._maps: dict[Path, mmap.mmap] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def headers(self, prefix: str) -> list[TensorHeader]:
        """Return the headers of tensors whose name starts with `prefix`. Raises CheckpointError without any."""
        headers = [tensor for name, tensor in self._tensors.items() if name.startswith(prefix)]
        if not headers:
            raise CheckpointError(
                f"{self._folder} holds no tensors named {prefix}*; the checkpoint is incomplete"
            )
        return headers

    def read(self, prefix: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Read all tensors whose name starts with `prefix`.

        Returns:
            The rest of the name -> tensor on `device` in `dtype`; on the CPU a tensor stored in `dtype` is a view
            of the file.

        Raises:
            CheckpointError: there are no such tensors, or a file is damaged.
        """
        return {t.name[len(prefix) :]: self._view(t).to(device).to(dtype) for t in self.headers(prefix)}

    def widened(self, name: str, device: str, dtype: torch.dtype) -> torch.Tensor:
        """Read one large tensor, converted and copied in parts; on the CPU a tensor stored in `dtype` is a view."""
        import torch

        stored = self.view(name)
        if device == "cpu" and stored.dtype == dtype:
            return stored
        converted = torch.empty(stored.shape, dtype=dtype, device=device)
        rows = max(1, _COPIED_AT_ONCE // max(1, stored[0].nbytes))
        for target, part in zip(converted.split(rows), stored.split(rows), strict=True):
            target.copy_(part)
            self.release(name)
        return converted

    def view(self, name: str) -> torch.Tensor:
        """Return one tensor in its stored dtype, as a view of the file that must not be written to."""
        return self._view(self._tensors[name])

    def _view(self, tensor: TensorHeader) -> torch.Tensor:
        import torch

        if tensor.dtype not in _TORCH:
            raise CheckpointError(
                f"tensor '{tensor.name}' in {tensor.file.name} is stored as {tensor.dtype}, which is not "
                "supported; save the checkpoint as float32, float16 or bfloat16"
            )
        dtype = getattr(torch, _TORCH[tensor.dtype])
        if tensor.size == 0:
            return torch.empty(tensor.shape, dtype=dtype)
        flat = torch.frombuffer(self._map(tensor.file), dtype=dtype, count=tensor.size, offset=tensor.begin)
        return flat.view(tensor.shape)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            try:
                with open(path, "rb") as file:
                    # copy on write: changes to a view never reach the file
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{path.name} in {self._folder} cannot be read: {error}") from error
        return self._maps[path]

    def prefetch(self, prefix: str) -> None:
        """Read these tensors' bytes from disk into the system's cache; meant for a second thread."""
        for path, begin, end in self._ranges(prefix):
            try:
                with open(path, "rb", buffering=0) as file:
                    if hasattr(os, "posix_fadvise"):
                        os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_WILLNEED)
                    else:
                        _read_through(file.fileno(), begin, end)
            except OSError:
                return  # the thread that needs the bytes reads them itself and reports the error

    def release(self, prefix: str) -> None:
        """Free the memory of these tensors' pages; a view that is used again reads them again."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for path, begin, end in self._ranges(prefix):
            if path in self._maps:
                first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
                last = end // mmap.PAGESIZE * mmap.PAGESIZE
                if last > first:
                    self._maps[path].madvise(mmap.MADV_DONTNEED, first, last - first)

    def _ranges(self, prefix: str) -> Iterator[tuple[Path, int, int]]:
        """Yield (file, begin, end) of the tensors' bytes, with adjacent ranges joined."""
        joined: tuple[Path, int, int] | None = None
        for tensor in sorted(self.headers(prefix), key=lambda t: (t.file, t.begin)):
            if joined and joined[0] == tensor.file and joined[2] == tensor.begin:
                joined = (joined[0], joined[1], tensor.end)
                continue
            if joined:
                yield joined
            joined = (tensor.file, tensor.begin, tensor.end)
        if joined:
            yield joined


def _read_through(descriptor: int, begin: int, end: int) -> None:
    while begin < end:
        part = os.pread(descriptor, min(_READ_AHEAD, end - begin), begin)
        if not part:
            return
        begin += len(part)
