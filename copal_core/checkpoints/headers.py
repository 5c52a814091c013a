"""Headers of a checkpoint's files: config.json and the tables of tensors in safetensors files.

A safetensors file begins with the header's length (8 bytes, little endian) and the header, a JSON object of
name -> dtype, shape, data_offsets. A description needs no more, so nothing here imports torch.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copal_core.errors import CheckpointError

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # the format's own limit, bytes


@dataclass(frozen=True)
class TensorHeader:
    """One stored tensor: dtype, shape, and position of its bytes (`begin` to `end` in `file`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of the checkpoint. Raises CheckpointError if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' cannot be read as JSON ({error}); copy the file again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' is not a JSON object; copy the file again")
    return content


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Read the header of one safetensors file. Raises CheckpointError if the file is truncated or damaged."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(size - 8, _LONGEST_HEADER):
                raise CheckpointError(
                    f"'{path}' is truncated or not a safetensors file: its header does not fit into its "
                    f"{size:,} bytes; copy or download it again"
                )
            header = json.loads(file.read(length))
        return _tensors(path, header, 8 + length, size)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"'{path}' cannot be read ({error}); copy or download it again") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"'{path}' has a damaged safetensors header; copy or download it again"
        ) from None


def _tensors(path: Path, header: dict[str, Any], start: int, size: int) -> dict[str, TensorHeader]:
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (start + int(offset) for offset in entry["data_offsets"])
        shape = tuple(int(length) for length in entry["shape"])
        tensor = TensorHeader(name, str(entry["dtype"]), shape, path, begin, end)
        if not start <= begin <= end:
            raise ValueError("offsets lie outside the data")
        if end > size:
            raise CheckpointError(
                f"'{path}' is truncated: tensor '{name}' ends at byte {end:,} of {size:,}; "
                "copy or download it again"
            )
        if tensor.dtype in BYTES and end - begin != tensor.size * BYTES[tensor.dtype]:
            raise ValueError("offsets and shape disagree")
        tensors[name] = tensor
    return tensors


def read_tensors(folder: Path) -> dict[str, TensorHeader]:
    """Read the headers of every tensor in a folder, from one file or from the shards of an index.

    Raises:
        CheckpointError: there are no weights or only pickled ones, or a shard is missing or damaged.
    """
    index = folder / INDEX
    if index.is_file():
        return _indexed(index)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(_no_weights(folder))
    whole = folder / "model.safetensors"
    tensors: dict[str, TensorHeader] = {}
    for path in [whole] if whole in files else files:
        tensors.update(read_header(path))
    return tensors


def _indexed(index: Path) -> dict[str, TensorHeader]:
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CheckpointError(f"'{index}' has no weight_map; copy or download it again")
    shards = sorted(set(shard_of.values()))
    tensors: dict[str, TensorHeader] = {}
    for number, shard in enumerate(shards, start=1):
        path = index.parent / shard
        if Path(shard).name != shard:
            raise CheckpointError(
                f"'{index}' places a shard outside its folder ('{shard}'); put all shards beside it"
            )
        if not path.is_file():
            raise CheckpointError(
                f"'{path}' is missing: shard {number} of {len(shards)} that {INDEX} lists; copy or download it"
            )
        tensors.update(read_header(path))
    absent = sorted(set(shard_of) - set(tensors))
    if absent:
        raise CheckpointError(
            f"tensor '{absent[0]}' is not in the shard '{shard_of[absent[0]]}' where {INDEX} places it; "
            f"copy or download '{index.parent}' again"
        )
    return tensors


def _no_weights(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickled:
        return (
            f"'{folder}' holds pickled weights only ({pickled[0]}), which can run code when they are read; "
            "convert them to safetensors"
        )
    return (
        f"'{folder}' holds no *.safetensors file; give a folder written by save_pretrained, or a .gguf file"
    )
