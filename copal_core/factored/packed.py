"""Small layers as files, in the bytes that the budget counts: masks with values, N:M places, factors.

Every tensor is a safetensors tensor; values and factors are 16-bit floats. A file's size is its header plus
exactly `budget`'s bytes of each layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from copal_core import budget, files
from copal_core.errors import InvalidValueError
from copal_core.lowrank._base import Factors

Bytes = NDArray[np.uint8]


def save_masked(path: Path, layers: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """name -> (weight, kept), both (out, in): a bitmask and the kept values in order."""
    arrays, shapes = {}, {}
    for name, (weight, kept) in layers.items():
        arrays[f"{name}.mask"] = np.packbits(kept.numpy().ravel())
        arrays[f"{name}.values"] = weight[kept].half().numpy()
        shapes[name] = list(weight.shape)
    _save(path, arrays, {"shapes": json.dumps(shapes, sort_keys=True)})


def load_masked(path: Path) -> dict[str, Tensor]:
    """name -> weight (out, in) float32, zero where removed."""
    arrays, metadata = files.read_arrays(path)
    found = {}
    for name, (rows, columns) in json.loads(metadata["shapes"]).items():
        kept = torch.from_numpy(np.unpackbits(arrays[f"{name}.mask"], count=rows * columns).astype(bool))
        weight = torch.zeros(rows * columns)
        weight[kept] = torch.from_numpy(arrays[f"{name}.values"]).float()
        found[name] = weight.reshape(rows, columns)
    return found


def save_pattern(path: Path, layers: Mapping[str, tuple[Tensor, Tensor]], keep: int, group: int) -> None:
    """name -> (weight, kept) with exactly `keep` of each `group` inputs: the kept values and their places.

    Raises InvalidValueError for a mask that is not of that pattern.
    """
    arrays, shapes = {}, {}
    for name, (weight, kept) in layers.items():
        if not bool((kept.reshape(weight.shape[0], -1, group).sum(dim=2) == keep).all()):
            raise InvalidValueError(f"the mask of '{name}' does not keep {keep} of each {group} inputs")
        places = (kept.nonzero()[:, 1] % group).numpy().astype(np.uint8)  # in the order of the values
        arrays[f"{name}.places"] = _pack(places, budget.place_bits(group))
        arrays[f"{name}.values"] = weight[kept].half().numpy()
        shapes[name] = list(weight.shape)
    _save(path, arrays, {"shapes": json.dumps(shapes, sort_keys=True), "pattern": f"{keep}:{group}"})


def load_pattern(path: Path) -> dict[str, Tensor]:
    """name -> weight (out, in) float32, zero where removed."""
    arrays, metadata = files.read_arrays(path)
    keep, group = map(int, metadata["pattern"].split(":"))
    found = {}
    for name, (rows, columns) in json.loads(metadata["shapes"]).items():
        count = rows * (columns // group) * keep
        unpacked = _unpack(arrays[f"{name}.places"], budget.place_bits(group), count)
        places = torch.from_numpy(unpacked.astype(np.int64)).reshape(rows, columns // group, keep)
        values = torch.from_numpy(arrays[f"{name}.values"]).float().reshape(places.shape)
        found[name] = (
            torch.zeros(rows, columns // group, group).scatter_(2, places, values).reshape(rows, columns)
        )
    return found


def save_factors(
    path: Path, factors: Mapping[str, Factors], metadata: Mapping[str, str] | None = None
) -> None:
    """'NAME.left' (out, r) and 'NAME.right' (r, in), 16-bit floats."""
    arrays: files.Arrays = {}
    for name, one in factors.items():
        half = one.in_half()
        arrays |= {f"{name}.left": half.left.cpu().numpy(), f"{name}.right": half.right.cpu().numpy()}
    _save(path, arrays, dict(metadata or {}))


def load_factors(path: Path) -> dict[str, Factors]:
    """name -> factors in single precision."""
    arrays, _ = files.read_arrays(path)
    names = sorted({key.rpartition(".")[0] for key in arrays})
    parts = {key: torch.from_numpy(array).float() for key, array in arrays.items()}
    return {name: Factors(parts[f"{name}.left"], parts[f"{name}.right"]) for name in names}


def _save(path: Path, arrays: files.Arrays, metadata: dict[str, str]) -> None:
    content = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    files.write_atomically(path, partial(save_file, content, metadata=metadata or None))


def _pack(values: Bytes, bits: int) -> Bytes:
    """Values of `bits` bits each, one after another."""
    return np.packbits(np.unpackbits(values[:, None], axis=1)[:, 8 - bits :].ravel())


def _unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    flat = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return np.packbits(np.pad(flat, ((0, 0), (8 - bits, 0))), axis=1).ravel()
