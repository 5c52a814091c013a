"""A checkpoint that is found and complete, but not loaded."""

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
    """`folder` holds config.json, safetensors (one file, or shards and an index) and the tokenizer's files.

    `name` is what the user gave; `revision` is the commit of a hub checkpoint.
    """

    name: str
    folder: Path
    revision: str | None = None

    def describe(self, device: str = "auto", dtype: str = "auto") -> Description:
        """Sizes, memory and the chosen dtype, from config.json and headers only; no torch."""
        return describe(self.folder, device, dtype)

    def tokenizer(self) -> Any:
        """The checkpoint's transformers tokenizer. Raises CheckpointError when it cannot be read."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001  the tokenizers library raises bare Exceptions
            raise CheckpointError(
                f"the tokenizer in '{self.folder}' cannot be read ({_first_line(error)}); save it again"
            ) from None

    def fingerprint(self) -> str:
        """64 hexadecimal digits that name the weights, the config and the tokenizer.

        sha256 over the config, tokenizer.json, every tensor's name, dtype and shape, and 4 KiB at its start,
        middle and end. How the tensors are spread over files does not matter. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        _, tensors = inspect(self.folder)
        config = read_json(self.folder / "config.json")
        kept = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
        digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
        tokenizer = self.folder / "tokenizer.json"
        if tokenizer.is_file():
            digest.update(tokenizer.read_bytes())
        for name in sorted(tensors):
            digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
            digest.update(_sample(tensors[name]))
        return digest.hexdigest()

    def open(self, device: str = "auto", dtype: str = "auto") -> Backbone:
        """Load the model's parts for a blockwise pass. Raises CheckpointError."""
        import torch

        from copal_core.checkpoints.backbone import Backbone

        found, chosen, _ = devices.choose(device, dtype)
        if found.startswith("cuda") and not torch.cuda.is_available():
            raise CheckpointError(
                f"torch {torch.__version__} cannot use the GPU of this machine; update its driver, or choose cpu"
            )
        return Backbone(self.folder, found, chosen)


def _sample(tensor: TensorHeader) -> bytes:
    length = min(_SAMPLE_BYTES, tensor.end - tensor.begin)
    places = (tensor.begin, (tensor.begin + tensor.end - length) // 2, tensor.end - length)
    with open(tensor.file, "rb") as file:
        parts = []
        for place in places:
            file.seek(place)
            parts.append(file.read(length))
    return b"".join(parts)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
