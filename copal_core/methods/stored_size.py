"""Stored size of a layer under each structure, index included, and the structure that fits a given size.

With b bits per value, a layer of `rows` × `columns` weights takes, in bits per weight:

dense          b
unstructured   (1 − s)·b + 1            the kept values and a bitmask
N:M            (N/M)·(b + ⌈log₂ M⌉)     each kept value and its position in its group (2 bits for 2:4)
rank r         r·(rows + columns)·b / (rows·columns)

A share is a size divided by the dense size at the same b. No layer is stored in more bytes than the dense one: at a
share of 1 every structure is the dense layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from copal_core.errors import InvalidValueError

if TYPE_CHECKING:
    from copal_core.config import Structure

VALUE_BITS = 16  # of a stored value, by default


def dense_bytes(rows: int, columns: int, bits: int = VALUE_BITS) -> int:
    """Return the bytes of all weights."""
    return _bytes(rows * columns * bits)


def mask_bytes(rows: int, columns: int, kept: int, bits: int = VALUE_BITS) -> int:
    """Return the bytes of `kept` values and a bitmask of whole bytes."""
    return _bytes(kept * bits) + _bytes(rows * columns)


def pattern_bytes(rows: int, columns: int, keep: int, group: int, bits: int = VALUE_BITS) -> int:
    """Return the bytes of `keep` values in each `group` inputs, and of the position of each in its group."""
    kept = rows * (columns // group) * keep
    return _bytes(kept * bits) + _bytes(kept * place_bits(group))


def structure_bytes(structure: Structure, rows: int, columns: int, kept: int, bits: int = VALUE_BITS) -> int:
    """Return the bytes of a layer in which `structure` kept `kept` weights."""
    if structure.kind == "n:m":
        return pattern_bytes(rows, columns, structure.keep, structure.group_size, bits)
    size = (
        mask_bytes(rows, columns, kept, bits) if structure.sparsity > 0 else dense_bytes(rows, columns, bits)
    )
    return min(size, dense_bytes(rows, columns, bits))


def rank_bytes(rows: int, columns: int, rank: int, bits: int = VALUE_BITS) -> int:
    """Return the bytes of two factors, (rows, rank) and (rank, columns)."""
    return _bytes(rank_parameters(rows, columns, rank) * bits)


def rank_parameters(rows: int, columns: int, rank: int) -> int:
    """Return the number of parameters in two factors."""
    return rank * (rows + columns)


def place_bits(group: int) -> int:
    """Return the bits that encode a position in a group: 2 for a group of 4."""
    return max(1, math.ceil(math.log2(group)))


def mask_share(sparsity: float, bits: int = VALUE_BITS) -> float:
    """Return the bytes of an unstructured mask and its values, as a share of the dense bytes."""
    return min(1.0, (1 - sparsity) + 1 / bits)


def pattern_share(keep: int, group: int, bits: int = VALUE_BITS) -> float:
    """Return the bytes of an N:M layer as a share of the dense bytes."""
    return min(1.0, keep / group * (1 + place_bits(group) / bits))


def rank_share(rows: int, columns: int, rank: int) -> float:
    """Return the bytes of two factors as a share of the dense bytes; 1 above the break-even rank."""
    return min(1.0, rank_parameters(rows, columns, rank) / (rows * columns))


def structure_share(structure: Structure, bits: int = VALUE_BITS) -> float:
    """Return the bytes under `structure` as a share of the dense bytes."""
    if structure.kind == "n:m":
        return pattern_share(structure.keep, structure.group_size, bits)
    return mask_share(structure.sparsity, bits) if structure.sparsity > 0 else 1.0


def sparsity_at(share: float, bits: int = VALUE_BITS) -> float:
    """Return the sparsity at which an unstructured mask fits into `share` of the bytes.

    It is 0 at a share of 1 (stored dense, without a mask), and 1 when the bitmask alone fills the budget.

    Raises:
        InvalidValueError: the share is not between 0 and 1.
    """
    _check(share)
    return 0.0 if share >= 1 else min(1.0, max(0.0, 1 - share + 1 / bits))


def rank_at(rows: int, columns: int, share: float) -> int:
    """Return the largest rank whose factors fit into `share` of the bytes.

    It is the full rank (stored dense) at a share of 1, and 0 when not even one pair of vectors fits.

    Raises:
        InvalidValueError: the share is not between 0 and 1.
    """
    _check(share)
    if share >= 1:
        return min(rows, columns)
    # the tiny surplus prevents an exact fit from being lost to rounding
    return min(rows, columns, int(share * rows * columns / (rows + columns) + 1e-9))


def _check(share: float) -> None:
    if not 0 <= share <= 1:
        raise InvalidValueError(
            f"a kept share of {share} is not a share of the bytes; use 0 to 1, such as 0.8"
        )


def _bytes(bits: int) -> int:
    return (bits + 7) // 8
