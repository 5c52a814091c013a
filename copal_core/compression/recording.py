"""Records of pruned layers for the pages: numbers, and small pooled maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from copal_core.compression.pruning import PrunedBlock
from copal_core.store.records import LayerRecord, OverlapRecord, Record, WarningRecord
from copal_core.store.run_store import RunStore

BINS = 64
_SAMPLE = 16_384  # scores from which the quantiles are read
_COUNTED_AT_ONCE = 4 * 2**20  # scores; counting takes several times their bytes
_DECADES = 9.0  # width of the histogram at most
_HEADED = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class PrunedLayer:
    """One projection of one block after one step.

    scores, kept: (out, in). previous: the mask of the step before, None at the first. thresholds: of its
    comparison groups, None for N:M. domain_mean: mean score under the newest domain's statistics alone.
    """

    method: str
    step: int
    block: int
    projection: str
    scores: Tensor
    kept: Tensor
    previous: Tensor | None
    thresholds: Tensor | None
    domain_mean: float


def record(layer: PrunedLayer) -> LayerRecord:
    """Counts, means and quantiles of one layer."""
    rows, columns = layer.kept.shape
    removed = ~layer.kept
    stay = revived = newly = None
    pruned = int(removed.sum())
    if layer.previous is not None:
        before = ~layer.previous.to(removed.device)
        stay = int((removed & before).sum())
        revived, newly = int(before.sum()) - stay, pruned - stay
    low, middle, high = _quantiles(layer.scores)
    thresholds = (None, None, None) if layer.thresholds is None else _quantiles(layer.thresholds)
    return LayerRecord(
        method=layer.method,
        step=layer.step,
        block=layer.block,
        projection=layer.projection,
        rows=rows,
        columns=columns,
        weights=rows * columns,
        pruned=pruned,
        score_mean=float(layer.scores.mean()),
        score_domain_mean=layer.domain_mean,
        score_p05=low,
        score_p50=middle,
        score_p95=high,
        threshold_p05=_finite(thresholds[0]),
        threshold_p50=_finite(thresholds[1]),
        threshold_p95=_finite(thresholds[2]),
        stay_pruned=stay,
        revived=revived,
        newly_pruned=newly,
    )


def maps(layer: PrunedLayer, side: int, heads: int) -> dict[str, NDArray[Any]]:
    """Pooled pictures of at most side × side, named 'projection.kind'; see `RunStore.tiles`."""
    score_tile, kept_tile = _pool(layer.scores, side), _pool(layer.kept, side)
    row_kept = torch.cat([part.float().mean(dim=1) for part in _parts(layer.kept)])
    counts, edges = _histogram(layer.scores, layer.kept)
    arrays: dict[str, NDArray[Any]] = {
        # scores span decades and are drawn on a logarithmic scale: half precision of the logarithm is a
        # relative error below 1 %, where half precision of the score itself would underflow
        "log_score": np.log10(np.maximum(_numpy(score_tile), 1e-30)).astype(np.float16),
        "kept": _as_bytes(_numpy(kept_tile)),
        "histogram": counts,
        "range": edges,
        "row_kept": _as_bytes(_numpy(F.adaptive_avg_pool1d(row_kept[None], min(side, len(row_kept)))[0])),
    }
    if layer.projection in _HEADED and heads:
        # o_proj reads the heads, the others write them
        axis = 1 if layer.projection == "o_proj" else 0
        arrays["head_kept"] = _by_head(layer.kept, heads, axis)
        arrays["head_score"] = _by_head(layer.scores, heads, axis)
    return {f"{layer.projection}.{name}": array for name, array in arrays.items()}


class BlockRecorder:
    """Turns one pruned block into records, and writes its maps."""

    def __init__(self, store: RunStore, config: Any, method: str, step: int, block: int) -> None:
        """config: the checkpoint's transformers configuration (for the number of heads)."""
        self._store = store
        self._place = (method, step, block)
        self._heads = dict.fromkeys(("q_proj", "o_proj"), config.num_attention_heads)
        self._heads |= dict.fromkeys(("k_proj", "v_proj"), config.num_key_value_heads)
        self._pictures: dict[str, NDArray[Any]] = {}
        self._layer_records: list[Record] = []
        self._warnings: list[Record] = []
        self._overlap_records: dict[str, list[Record]] = {}

    def add(self, pruned: PrunedBlock, domain_means: Mapping[str, float] | None) -> None:
        """Take in the projections of one group; their scores are not needed after.

        domain_means: mean score of each projection under the newest domain alone, where that differs.
        """
        side = self._store.config.protocol.map_size
        for layer in self._layers(pruned, domain_means):
            self._pictures |= maps(layer, side, self._heads.get(layer.projection, 0))
            self._layer_records.append(record(layer))
        self._warnings += [WarningRecord(*self._place, *warning) for warning in pruned.warnings]
        for other, found in self._overlaps(pruned).items():
            self._overlap_records.setdefault(other, []).extend(found)

    def records(self) -> list[Record]:
        """Write the maps; layer, warning and overlap records of what was taken in."""
        self._store.save_arrays("maps", *self._place, self._pictures)
        overlaps = [found for records in self._overlap_records.values() for found in records]
        return [*self._layer_records, *self._warnings, *overlaps]

    def _layers(self, pruned: PrunedBlock, domain_means: Mapping[str, float] | None) -> Iterator[PrunedLayer]:
        method, step, block = self._place
        previous = {}
        if step > self._store.config.first_step:
            previous = self._store.masks(method, step - 1, block, list(pruned.kept))
        for name, scores in pruned.scores.items():
            yield PrunedLayer(
                method=method,
                step=step,
                block=block,
                projection=name,
                scores=scores,
                kept=pruned.kept[name],
                previous=torch.from_numpy(previous[name]) if name in previous else None,
                thresholds=pruned.thresholds[name],
                domain_mean=float(scores.mean()) if domain_means is None else domain_means[name],
            )

    def _overlaps(self, pruned: PrunedBlock) -> dict[str, list[Record]]:
        """By the methods that come earlier in the run's list: they have finished this block."""
        method, step, block = self._place
        found: dict[str, list[Record]] = {}
        for other in map(str, self._store.config.methods):
            if other == method:
                break
            if not self._store.has_arrays("masks", other, step, block):
                continue  # a low-rank method has no mask
            theirs = self._store.masks(other, step, block, list(pruned.kept))
            for name, kept in pruned.kept.items():
                if name not in theirs:
                    continue  # a hybrid's layer of low rank
                a, b = ~theirs[name], ~kept.cpu().numpy()
                both, either = int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))
                record = OverlapRecord(step, other, method, block, name, both, either)
                found.setdefault(other, []).append(record)
        return found


def _quantiles(values: Tensor) -> tuple[float, float, float]:
    """5 %, 50 % and 95 %, from an evenly spaced sample of a large tensor."""
    flat = _numpy(values.flatten())
    sample = flat[:: max(1, flat.size // _SAMPLE)]
    places = [round(share * (sample.size - 1)) for share in (0.05, 0.5, 0.95)]
    ordered = np.partition(sample, places)
    low, middle, high = (float(ordered[place]) for place in places)
    return low, middle, high


def _finite(value: float | None) -> float | None:
    """None for the threshold of a row that loses nothing, which is minus infinity."""
    return value if value is not None and np.isfinite(value) else None


def _pool(values: Tensor, side: int) -> Tensor:
    rows, columns = values.shape
    tiles = min(side, rows)
    pooled = rows // tiles if rows % tiles == 0 else rows  # rows that can be pooled by themselves
    parts = [values] if pooled == rows else _parts(values, pooled)
    wide = min(side, columns)
    return torch.cat(
        [F.adaptive_avg_pool2d(part.float()[None], (len(part) * tiles // rows, wide))[0] for part in parts]
    )


def _parts(values: Tensor, multiple: int = 1) -> tuple[Tensor, ...]:
    """Rows (a multiple of some number) in parts of a bounded size: what is made of one takes several times that."""
    rows = max(1, _COUNTED_AT_ONCE // values.shape[1] // multiple) * multiple
    return values.split(rows)


def _by_head(values: Tensor, heads: int, axis: int) -> NDArray[Any]:
    mean = values.float().mean(dim=1 - axis)  # one number for each row or column
    return _numpy(mean.reshape(heads, -1).mean(dim=1)).astype(np.float32)


def _histogram(scores: Tensor, kept: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts (2, BINS) of kept and removed weights by log10 of the score, and the range of the bins.

    Scores of zero have no logarithm: they are counted in the lowest bin.
    """
    parts = _parts(scores)
    whole = scores.log10() if len(parts) == 1 else None  # -inf for zero
    ranges = [_log_range(part, whole) for part in parts]
    smallest, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if not np.isfinite(high):  # nothing but zeros
        smallest, high = -1.0, 0.0
    # far below the largest lie few weights: the lowest bin takes them, and the picture keeps its width
    low = max(smallest, high - _DECADES)
    high = high if high > low else low + 1.0
    counts = np.zeros((2, BINS), dtype=np.int64)
    for part, stays in zip(parts, kept.split(parts[0].shape[0]), strict=True):
        logs = (part.log10() if whole is None else whole).clamp_(low, high)
        bins = logs.sub_(low).mul_(BINS / (high - low)).clamp_(max=BINS - 1).long()
        bins += (~stays).long() * BINS
        counts += _numpy(torch.bincount(bins.flatten(), minlength=2 * BINS).reshape(2, BINS))
    return counts.astype(np.uint32), np.array([low, high], dtype=np.float32)


def _log_range(scores: Tensor, known: Tensor | None) -> tuple[float, float]:
    """Smallest logarithm of a score above zero, and the largest of any. known: the logarithms, where at hand."""
    logs = scores.log10() if known is None else known
    return float(torch.where(scores > 0, logs, torch.inf).min()), float(logs.max())


def _as_bytes(share: NDArray[Any]) -> NDArray[np.uint8]:
    """A share 0..1 in steps of half a percent: enough for a picture."""
    return np.round(share * 200).astype(np.uint8)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()
