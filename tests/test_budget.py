"""Stored sizes against the bytes of layers that are really packed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from copal_core.config import Structure
from copal_core.errors import InvalidValueError
from copal_core.methods import stored_size
from copal_core.methods.decomposition import Factors
from copal_core.methods.masks import select
from copal_core.system import files

SHAPES = [(8, 16), (7, 12), (33, 20), (64, 24)]


def data_bytes(path: Path) -> int:
    """Bytes of a safetensors file besides its header."""
    content = path.read_bytes()
    return len(content) - 8 - struct.unpack("<Q", content[:8])[0]


def weights(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * columns))


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_a_packed_mask_has_the_bytes_of_the_budget(rows: int, columns: int, sparsity: float) -> None:
    """A bitmask and the kept values in order are enough to have the layer back."""
    weight = weights(rows, columns).half()
    kept = select(weight.float().abs(), Structure(sparsity=sparsity)).kept
    mask, values = np.packbits(kept.numpy().ravel()), weight[kept].numpy()
    size = stored_size.mask_bytes(rows, columns, int(kept.sum()))
    assert mask.nbytes + values.nbytes == size
    assert stored_size.structure_bytes(Structure(sparsity=sparsity), rows, columns, int(kept.sum())) == size
    loaded = np.zeros(rows * columns, np.float16)
    loaded[np.unpackbits(mask, count=rows * columns).astype(bool)] = values
    assert np.array_equal(loaded.reshape(rows, columns), (weight * kept).numpy())


@pytest.mark.parametrize(("keep", "group"), [(2, 4), (1, 4), (4, 8), (3, 4)])
@pytest.mark.parametrize(("rows", "columns"), [(8, 16), (7, 24)])
def test_a_packed_pattern_has_the_bytes_of_the_budget(rows: int, columns: int, keep: int, group: int) -> None:
    """The kept values, and the place of each in its group, are enough to have the layer back."""
    weight, structure = weights(rows, columns).half(), Structure(kind="n:m", keep=keep, group_size=group)
    kept = select(weight.float().abs(), structure).kept
    values, bits = weight[kept].numpy(), stored_size.place_bits(group)
    places = (kept.nonzero()[:, 1] % group).numpy().astype(np.uint8)  # in the order of the values
    packed = np.packbits(np.unpackbits(places[:, None], axis=1)[:, 8 - bits :].ravel())
    assert packed.nbytes + values.nbytes == stored_size.pattern_bytes(rows, columns, keep, group)
    assert stored_size.structure_bytes(structure, rows, columns, len(values)) == packed.nbytes + values.nbytes
    flat = np.unpackbits(packed, count=len(values) * bits).reshape(-1, bits)
    again = np.packbits(np.pad(flat, ((0, 0), (8 - bits, 0))), axis=1).reshape(rows, -1, keep)
    loaded = np.zeros((rows, columns // group, group), np.float16)
    np.put_along_axis(loaded, again.astype(np.int64), values.reshape(again.shape), axis=2)
    assert np.array_equal(loaded.reshape(rows, columns), (weight * kept).numpy())


def test_nothing_removed_is_stored_dense() -> None:
    assert stored_size.structure_bytes(Structure(sparsity=0.0), 8, 8, 64) == stored_size.dense_bytes(8, 8)
    assert stored_size.structure_bytes(Structure(sparsity=0.01), 8, 8, 64) == stored_size.dense_bytes(8, 8)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("rank", [1, 5])
def test_a_file_of_factors_has_the_bytes_of_the_budget(
    tmp_path: Path, rows: int, columns: int, rank: int
) -> None:
    factors = Factors(weights(rows, rank), weights(rank, columns))
    path = tmp_path / "factors.safetensors"
    half = factors.in_half()
    files.write_arrays(path, {"left": half.left.numpy(), "right": half.right.numpy()})
    assert data_bytes(path) == stored_size.rank_bytes(rows, columns, rank) == 2 * factors.parameters
    assert torch.allclose(half.left.float() @ half.right.float(), factors.weight(), atol=0.02)


@given(some.integers(1, 300), some.integers(1, 300), some.floats(0, 1))
def test_the_rank_at_a_share_is_the_largest_that_fits(rows: int, columns: int, share: float) -> None:
    rank = stored_size.rank_at(rows, columns, share)
    if share >= 1:
        assert rank == min(rows, columns)
        return
    dense = rows * columns
    assert stored_size.rank_parameters(rows, columns, rank) <= share * dense + 1e-6 * (rows + columns)
    if rank < min(rows, columns):
        assert stored_size.rank_parameters(rows, columns, rank + 1) > share * dense - 1e-6 * dense


@given(some.floats(0.07, 0.999))
def test_the_sparsity_at_a_share_uses_all_of_it(share: float) -> None:
    sparsity = stored_size.sparsity_at(share)
    assert stored_size.mask_share(sparsity) == pytest.approx(share)


def test_known_sizes() -> None:
    assert stored_size.structure_share(Structure(sparsity=0.5)) == 0.5625
    assert stored_size.structure_share(Structure(kind="n:m", keep=2, group_size=4)) == 0.5625
    assert stored_size.structure_share(Structure(sparsity=0.0)) == 1.0
    assert stored_size.place_bits(4) == 2
    assert stored_size.rank_at(576, 576, 0.5625) == 162
    assert stored_size.sparsity_at(1.0) == 0.0 and stored_size.sparsity_at(0.0) == 1.0


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(InvalidValueError, match="use 0 to 1"):
        stored_size.rank_at(8, 8, share)
