"""Reading named tensors of a checkpoint folder from one or many safetensors files, mapped rather than copied.

The files are mapped into memory: a tensor's pages are read when they are first used, and can be let go of
again. So a model that does not fit into memory is visited part by part, and none of it is ever written.
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
_READ_AHEAD = 8 * 2**20  # bytes read at a time where the system has no call for reading ahead


class WeightFiles:
    """The tensors of a folder by name; nothing but headers is read until it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # tables that old checkpoints carry along; they follow from the configuration
        self._tensors = {n: t for n, t in read_tensors(folder).items() if "rotary_emb" not in n}
        self._maps: dict[Path, mmap.mmap] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def headers(self, prefix: str) -> list[TensorHeader]:
        """The tensors whose name starts with `prefix`. Raises CheckpointError when there are none."""
        found = [tensor for name, tensor in self._tensors.items() if name.startswith(prefix)]
        if not found:
            raise CheckpointError(
                f"{self._folder} holds no tensors named {prefix}*; the checkpoint is incomplete"
            )
        return found

    def read(self, prefix: str, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Tensors whose name starts with `prefix`, keyed by the rest of the name, on `device` as `dtype`.

        On the CPU a tensor that is stored as `dtype` is a view of the file. Raises CheckpointError when there
        are none or a file is damaged.
        """
        return {t.name[len(prefix) :]: self._view(t).to(device).to(dtype) for t in self.headers(prefix)}

    def widened(self, name: str, device: str, dtype: torch.dtype) -> torch.Tensor:
        """One large tensor on `device` as `dtype`, copied part by part; on the CPU a view if stored so."""
        import torch

        stored = self.view(name)
        if device == "cpu" and stored.dtype == dtype:
            return stored
        found = torch.empty(stored.shape, dtype=dtype, device=device)
        rows = max(1, _COPIED_AT_ONCE // max(1, stored[0].nbytes))
        for target, part in zip(found.split(rows), stored.split(rows), strict=True):
            target.copy_(part)
            self.release(name)
        return found

    def view(self, name: str) -> torch.Tensor:
        """One tensor as it is stored, a view of the file. Not to be written to."""
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
        found = torch.frombuffer(self._map(tensor.file), dtype=dtype, count=tensor.size, offset=tensor.begin)
        return found.view(tensor.shape)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            try:
                with open(path, "rb") as file:
                    # a private copy on write: what is computed with a view can never reach the file
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{path.name} in {self._folder} cannot be read: {error}") from error
        return self._maps[path]

    def prefetch(self, prefix: str) -> None:
        """Have the system read these tensors' bytes from the disk; for a thread beside the one that computes."""
        for path, begin, end in self._ranges(prefix):
            try:
                with open(path, "rb", buffering=0) as file:
                    if hasattr(os, "posix_fadvise"):
                        os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_WILLNEED)
                    else:
                        _read_through(file.fileno(), begin, end)
            except OSError:
                return  # whoever needs the bytes reads them, and says what is wrong

    def release(self, prefix: str) -> None:
        """Let go of the memory that these tensors' pages take; a view that is used again reads them again."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for path, begin, end in self._ranges(prefix):
            if path in self._maps:
                first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
                last = end // mmap.PAGESIZE * mmap.PAGESIZE
                if last > first:
                    self._maps[path].madvise(mmap.MADV_DONTNEED, first, last - first)

    def _ranges(self, prefix: str) -> Iterator[tuple[Path, int, int]]:
        """File, first and last byte of neighbouring tensors, joined where they touch."""
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
