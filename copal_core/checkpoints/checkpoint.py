"""A checkpoint that has been located and is complete, but not loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copal_core.checkpoints import devices
from copal_core.checkpoints.description import Description, describe, inspect
from copal_core.checkpoints.headers import TensorHeader, read_json
from copal_core.errors import CheckpointError

if TYPE_CHECKING:
    from copal_core.checkpoints.backbone import Backbone

_SAMPLE_BYTES = 4096
_NOT_IDENTITY = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        name: as the user gave it.
        folder: holds config.json, safetensors (one file, or shards and an index) and the tokenizer's files.
        revision: commit of a checkpoint from the hub.
    """

    name: str
    folder: Path
    revision: str | None = None

    def describe(self, device: str = "auto", dtype: str = "auto") -> Description:
        """Return sizes, memory and the chosen dtype, from config.json and headers alone; no torch."""
        return describe(self.folder, device, dtype)

    def tokenizer(self) -> Any:
        """Load the checkpoint's transformers tokenizer. Raises CheckpointError if it cannot be read."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001  the tokenizers library raises bare Exceptions
            raise CheckpointError(
                f"the tokenizer in '{self.folder}' cannot be read ({_first_line(error)}); save it again"
            ) from None

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that identify weights, configuration and tokenizer.

        SHA-256 of the configuration, tokenizer.json, and each tensor's name, dtype, shape and 4 KiB from its start,
        middle and end. It does not depend on how tensors are distributed over files. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        _, tensors = inspect(self.folder)
        config = read_json(self.folder / "config.json")
        identity = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
        tokenizer = self.folder / "tokenizer.json"
        if tokenizer.is_file():
            digest.update(tokenizer.read_bytes())
        for name in sorted(tensors):
            digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
            digest.update(_sample(tensors[name]))
        return digest.hexdigest()

    def open(self, device: str = "auto", dtype: str = "auto") -> Backbone:
        """Load the model for a blockwise pass.

        Args:
            device: auto, cpu, cuda, cuda:N or cuda:all.
            dtype: auto, float32, bfloat16 or float16.

        Raises:
            CheckpointError: the files are damaged, or the device is not available.
        """
        import torch

        from copal_core.checkpoints.backbone import Backbone

        device, dtype, _ = devices.choose(device, dtype)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise CheckpointError(
                f"torch {torch.__version__} cannot use the GPU of this machine; update its driver, or choose cpu"
            )
        return Backbone(self.folder, device, dtype)


def _sample(tensor: TensorHeader) -> bytes:
    length = min(_SAMPLE_BYTES, tensor.end - tensor.begin)
    positions = (tensor.begin, (tensor.begin + tensor.end - length) // 2, tensor.end - length)
    with open(tensor.file, "rb") as file:
        parts = []
        for position in positions:
            file.seek(position)
            parts.append(file.read(length))
    return b"".join(parts)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
