"""Stored size of a layer under each structure, index included, and the structure that fits a given size.

With b bits a value, a layer of `rows` × `columns` weights takes, in bits a weight:

dense          b
unstructured   (1 − s)·b + 1            the values kept, and a bitmask
N:M            (N/M)·(b + ⌈log₂ M⌉)     each kept value, and its place in its group (2 bits for 2:4)
rank r         r·(rows + columns)·b / (rows·columns)

A share is a size over the dense size at the same b. Nothing is stored larger than the dense layer: at a
share of 1 every structure is the dense layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from copal_core.errors import InvalidValueError

if TYPE_CHECKING:
    from copal_core.config import Structure

VALUE_BITS = 16  # of a stored value, unless said otherwise


def dense_bytes(rows: int, columns: int, bits: int = VALUE_BITS) -> int:
    """Every weight."""
    return _bytes(rows * columns * bits)


def mask_bytes(rows: int, columns: int, kept: int, bits: int = VALUE_BITS) -> int:
    """`kept` values and a bitmask of whole bytes."""
    return _bytes(kept * bits) + _bytes(rows * columns)


def pattern_bytes(rows: int, columns: int, keep: int, group: int, bits: int = VALUE_BITS) -> int:
    """`keep` values of each `group` inputs, and the place of each in its group."""
    kept = rows * (columns // group) * keep
    return _bytes(kept * bits) + _bytes(kept * place_bits(group))


def structure_bytes(structure: Structure, rows: int, columns: int, kept: int, bits: int = VALUE_BITS) -> int:
    """A layer of which `structure` left `kept` weights."""
    if structure.kind == "n:m":
        return pattern_bytes(rows, columns, structure.keep, structure.group_size, bits)
    size = (
        mask_bytes(rows, columns, kept, bits) if structure.sparsity > 0 else dense_bytes(rows, columns, bits)
    )
    return min(size, dense_bytes(rows, columns, bits))


def rank_bytes(rows: int, columns: int, rank: int, bits: int = VALUE_BITS) -> int:
    """Two factors, (rows, rank) and (rank, columns)."""
    return _bytes(rank_parameters(rows, columns, rank) * bits)


def rank_parameters(rows: int, columns: int, rank: int) -> int:
    """Numbers in two factors."""
    return rank * (rows + columns)


def place_bits(group: int) -> int:
    """Bits that name one place in a group: 2 for a group of 4."""
    return max(1, math.ceil(math.log2(group)))


def mask_share(sparsity: float, bits: int = VALUE_BITS) -> float:
    """Bytes of an unstructured mask and its values, over the dense bytes."""
    return min(1.0, (1 - sparsity) + 1 / bits)


def pattern_share(keep: int, group: int, bits: int = VALUE_BITS) -> float:
    """Bytes of an N:M layer over the dense bytes."""
    return min(1.0, keep / group * (1 + place_bits(group) / bits))


def rank_share(rows: int, columns: int, rank: int) -> float:
    """Bytes of two factors over the dense bytes; above the break-even rank the dense layer is smaller."""
    return min(1.0, rank_parameters(rows, columns, rank) / (rows * columns))


def structure_share(structure: Structure, bits: int = VALUE_BITS) -> float:
    """Bytes that `structure` leaves, over the dense bytes."""
    if structure.kind == "n:m":
        return pattern_share(structure.keep, structure.group_size, bits)
    return mask_share(structure.sparsity, bits) if structure.sparsity > 0 else 1.0


def sparsity_at(share: float, bits: int = VALUE_BITS) -> float:
    """The share of weights that an unstructured mask must remove to fit `share` of the bytes.

    0 at a share of 1 (stored dense, no mask); 1 when the bitmask alone fills the budget.
    """
    _check(share)
    return 0.0 if share >= 1 else min(1.0, max(0.0, 1 - share + 1 / bits))


def rank_at(rows: int, columns: int, share: float) -> int:
    """The largest rank whose factors fit `share` of the bytes; full rank (stored dense) at a share of 1.

    May be 0, when not even one pair of vectors fits.
    """
    _check(share)
    if share >= 1:
        return min(rows, columns)
    # the tiny surplus keeps an exact fit from being lost to rounding
    return min(rows, columns, int(share * rows * columns / (rows + columns) + 1e-9))


def _check(share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidValueError(
            f"a kept share of {share} is not a share of the bytes; use 0 to 1, such as 0.8"
        )


def _bytes(bits: int) -> int:
    return (bits + 7) // 8
