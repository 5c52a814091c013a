"""Masks from importance scores: exactly the requested share is removed, ties are broken by index.

The weights with the smallest scores are removed. Among equal scores the weight with the lower index is removed first,
so that equal scores always give equal masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from copal_core.errors import NumericalError

if TYPE_CHECKING:
    from copal_core.config import Structure

_SELECTED_AT_ONCE = 8 * 2**20  # scores; selection copies its input, and this bounds the copy
_COMPARE_UP_TO = 16  # N:M groups up to this size are ranked by comparing pairs; larger ones are sorted


@dataclass(frozen=True)
class Selection:
    """A mask.

    Attributes:
        kept: (out, in) bool.
        thresholds: the largest removed score of each comparison group; None for N:M.
    """

    kept: Tensor
    thresholds: Tensor | None


def select(scores: Tensor, structure: Structure, sections: Sequence[int] | None = None) -> Selection:
    """Select the weights that `structure` keeps.

    Args:
        scores: (out, in) float32, finite; larger means keep.
        structure: sparsity and comparison group, or N:M.
        sections: row counts of the layers stacked in `scores`, for comparison within each layer; None for one layer.

    Raises:
        NumericalError: scores are not finite.
        InvalidValueError: an N:M group does not divide the input dimension.
    """
    # finite exactly if minimum and maximum are finite: a NaN propagates to both
    if scores.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(scores))).all()):
        bad = int((~torch.isfinite(scores)).sum())
        raise NumericalError(
            f"{bad} of {scores.numel()} scores are not finite: the checkpoint's weights are not, or the "
            "calibration overflowed; copy the checkpoint again, or use float32"
        )
    if structure.kind == "n:m":
        structure.check_divides(scores.shape[1])
        chosen = [_keep_n_of_m(part, structure.keep, structure.group_size) for part in _in_parts(scores)]
        return Selection(chosen[0] if len(chosen) == 1 else torch.cat(chosen), None)
    if structure.group == "row":
        count = removed_count(scores.shape[1], structure.sparsity)
        return _joined([select_rows(part, count) for part in _in_parts(scores)])
    parts = scores.split(list(sections) if sections else [scores.shape[0]])
    within = [select_rows(p.reshape(1, -1), removed_count(p.numel(), structure.sparsity)) for p in parts]
    return _joined(
        [
            Selection(selection.kept.reshape(part.shape), selection.thresholds)
            for selection, part in zip(within, parts, strict=True)
        ]
    )


def _in_parts(scores: Tensor) -> Sequence[Tensor]:
    """Split independent rows into parts with a bounded number of scores."""
    return scores.split(max(1, _SELECTED_AT_ONCE // max(1, scores.shape[1])))


def _joined(parts: Sequence[Selection]) -> Selection:
    """Stack selections along the rows."""
    if len(parts) == 1:
        return parts[0]
    thresholds = [part.thresholds for part in parts if part.thresholds is not None]
    return Selection(torch.cat([part.kept for part in parts]), torch.cat(thresholds))


def removed_count(weights: int, sparsity: float) -> int:
    """Return the whole number of weights nearest to the share `sparsity`."""
    return round(weights * sparsity)


def select_rows(scores: Tensor, count: int) -> Selection:
    """Remove the `count` smallest scores of each row.

    Args:
        scores: (rows, columns).
        count: of weights removed from each row; 0 gives thresholds of minus infinity.

    Returns:
        kept (rows, columns) and thresholds (rows,).
    """
    if count <= 0:
        return Selection(
            torch.ones_like(scores, dtype=torch.bool), scores.new_full((scores.shape[0],), -torch.inf)
        )
    thresholds = _kth_smallest(scores, count)  # (rows,)
    kept = scores > thresholds[:, None]
    # scores equal to the threshold were all removed: restore as many as are missing in each row
    surplus = scores.shape[1] - count - _count(kept)  # (rows,)
    tied = surplus.nonzero().squeeze(1)
    if tied.numel():
        equal = scores[tied] == thresholds[tied, None]  # (tied rows, columns)
        from_the_right = equal.flip(1).cumsum(1).flip(1)  # the highest indices are kept
        kept[tied] |= equal & (from_the_right <= surplus[tied, None])
    return Selection(kept, thresholds)


def _count(kept: Tensor) -> Tensor:
    """Count the True entries of each row, (rows,); by numpy on the CPU, where torch adds booleans slowly."""
    if kept.device.type == "cpu":
        import numpy as np

        return torch.from_numpy(np.count_nonzero(kept.numpy(), axis=1))
    return kept.sum(dim=1)


def _kth_smallest(scores: Tensor, count: int) -> Tensor:
    """Return the count-th smallest score of each row, (rows,), by selection instead of sorting."""
    if scores.device.type == "cpu":
        import numpy as np

        values = scores.detach().numpy()
        return torch.from_numpy(np.partition(values, count - 1, axis=1)[:, count - 1].copy())
    return scores.kthvalue(count, dim=1).values


def _keep_n_of_m(scores: Tensor, keep: int, size: int) -> Tensor:
    rows, columns = scores.shape
    groups = scores.reshape(rows, columns // size, size)
    if size > _COMPARE_UP_TO:
        order = groups.argsort(dim=-1, stable=True)  # ascending, equal scores by index
        kept = torch.ones_like(groups, dtype=torch.bool)
        return kept.scatter_(-1, order[..., : size - keep], False).reshape(rows, columns)
    members = [groups[..., index].contiguous() for index in range(size)]
    rank = [torch.zeros_like(members[0], dtype=torch.uint8) for _ in range(size)]
    for low in range(size):
        for high in range(low + 1, size):
            low_first = members[low] <= members[high]  # an equal score at the lower index ranks lower
            rank[high] += low_first
            rank[low] += ~low_first
    return torch.stack([r >= size - keep for r in rank], dim=-1).reshape(rows, columns)
