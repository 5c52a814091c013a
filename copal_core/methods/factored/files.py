"""Factors as files, in the bytes that the budget counts: 16-bit floats, besides the header and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from copal_core.methods.decomposition import Factors
from copal_core.system import files


def save_factors(
    path: Path, factors: Mapping[str, Factors], metadata: Mapping[str, str] | None = None
) -> None:
    """'NAME.left' (out, r) and 'NAME.right' (r, in), 16-bit floats."""
    arrays: files.Arrays = {}
    for name, one in factors.items():
        half = one.in_half()
        arrays |= {f"{name}.left": half.left.cpu().numpy(), f"{name}.right": half.right.cpu().numpy()}
    files.write_arrays(path, arrays, dict(metadata) if metadata else None)


def load_factors(path: Path) -> dict[str, Factors]:
    """name -> factors in single precision."""
    arrays, _ = files.read_arrays(path)
    names = sorted({key.rpartition(".")[0] for key in arrays})
    parts = {key: torch.from_numpy(array).float() for key, array in arrays.items()}
    return {name: Factors(parts[f"{name}.left"], parts[f"{name}.right"]) for name in names}
