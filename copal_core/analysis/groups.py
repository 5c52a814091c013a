"""Outcomes of a group of runs in one table: each method's spread, gaps beyond chance, and the Pareto front."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from copal_core.analysis.results import result_of
from copal_core.errors import RunError
from copal_core.methods import describe, stored_size

if TYPE_CHECKING:
    import pandas as pd

    from copal_core.store.run_store import RunStore

METRICS = {
    "average": "Average perplexity after the last domain",
    "ratio": "Average perplexity over the dense model's",
    "backward_transfer": "Backward transfer",
}
# the columns in which runs may differ, besides their method, and how a value is named in words
SETTINGS = {
    "checkpoint": "{}",
    "weights": "weights {}",
    "run_structure": "{}",
    "order": "{}",
    "length": "windows of {} tokens",
    "calibration": "calibration {}",
    "evaluation": "evaluation {}",
    "propagation": "{} propagation",
    "dtype": "{}",
    "seed": "seed {}",
}
# named by another setting where that differs too
_IMPLIED = {"weights": "checkpoint", "length": "calibration"}
_NUMBERS = (*METRICS, "dense_average", "kept", "stasis", "seconds")
COLUMNS = (
    "run", "checkpoint", "order", "structure", "kept", "bytes", "method", "seed", "calibration", "windows", "length",
    "evaluation", "propagation", "dtype", "run_structure", "weights", "texts", "average", "dense_average", "ratio",
    "backward_transfer", "stasis", "seconds",
)  # fmt: skip


def outcomes(stores: Iterable[RunStore]) -> pd.DataFrame:
    """Return one row a run and method, with the columns of `COLUMNS`, and one for the dense model of each setting.

    average, ratio, backward_transfer: after the last domain; NaN where the run has no finite number. ratio: the mean
    over the domains of perplexity over the dense model's on the same windows. kept: stored bytes of the decoder layers
    over their dense bytes at 16 bits a value, index included. structure: what the method removes; run_structure: what
    the run was asked to remove. weights: the beginning of the checkpoint's fingerprint. texts: tells the windows of
    text that two runs saw apart, whatever their order.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    dense_seen = set()
    for store in stores:
        try:
            dense, *methods = _rows(store)
        except RunError:
            continue  # damaged or deleted meanwhile; the others still count
        setting = tuple(dense[name] for name in SETTINGS)
        if np.isfinite(dense["average"]) and setting not in dense_seen:
            dense_seen.add(setting)
            rows.append(dense)
        rows += methods
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_NUMBERS, float))


def _rows(store: RunStore) -> Iterator[dict[str, Any]]:
    """The dense model's row, then each method's."""
    config, result, setting = store.config, result_of(store), _setting(store)
    dense = np.array([result["dense"][name] for name in store.domains], float)  # (domains,); None becomes NaN
    size = _dense_bytes(store)
    yield {
        **setting,
        "method": "dense",
        "structure": "dense",
        "kept": 1.0,
        "bytes": size,
        "average": dense.mean(),
        "dense_average": dense.mean(),
        "ratio": 1.0,
    }
    for method, found in zip(config.methods, result["methods"], strict=True):
        last = np.array(found["perplexity"][-1], float)  # (domains,) after the last step
        kept = found.get("stored_share") or stored_size.structure_share(config.structure)
        yield {
            **setting,
            "method": found["method"],
            "structure": describe.amount_words(method, config.structure),
            "kept": kept,
            "bytes": round(kept * size),
            "average": last.mean(),
            "dense_average": dense.mean(),
            "ratio": (last / dense).mean(),
            "backward_transfer": found["bwt"],
            "stasis": found["stasis"][-1] if found["stasis"] else None,
            "seconds": sum(found["seconds"].values()),
        }


def _setting(store: RunStore) -> dict[str, Any]:
    """All that a run's methods share."""
    config, info = store.config, store.info
    protocol, checkpoint = config.protocol, info.get("checkpoint", {})
    texts = sorted(str(domain.get("content_hash", "")) for domain in info.get("domains", []))
    return {
        "run": store.id,
        "checkpoint": config.checkpoint,
        "weights": str(checkpoint.get("fingerprint", ""))[:8],
        "texts": hashlib.sha256(" ".join(texts).encode()).hexdigest()[:8],
        "order": " → ".join(store.domains),
        "run_structure": str(config.structure),
        "seed": protocol.seed,
        "calibration": str(protocol.calibration),
        "windows": protocol.calibration.count,
        "length": protocol.calibration.length,
        "evaluation": str(protocol.evaluation),
        "propagation": protocol.propagate,
        "dtype": str(checkpoint.get("dtype") or protocol.dtype),
    }


def _dense_bytes(store: RunStore) -> int:
    described = store.info.get("checkpoint", {})
    weights = sum(rows * columns for rows, columns in described.get("projections", {}).values())
    return int(weights * described.get("blocks", 0) * stored_size.VALUE_BITS // 8)


def without_dense(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods."""
    return table[table["method"] != "dense"]


def alike(table: pd.DataFrame, *apart: str) -> list[tuple[str, pd.DataFrame]]:
    """Part the outcomes by every setting in which they differ, but for those of `apart`.

    Runs of one part may be drawn together and averaged. Returns pairs of what sets the part apart, in words, and its
    rows; the words are empty where there is one part.
    """
    names = _differing(table, apart)
    if not names:
        return [("", table)]
    parts = []
    for values, part in table.groupby(names, sort=False):
        words = [
            named(name, value)
            for name, value in zip(names, values, strict=True)
            if _IMPLIED.get(name) not in names
        ]
        parts.append((", ".join(words), part))
    return parts


def named(setting: str, value: object) -> str:
    """The value of a setting in words, such as 'calibration 16×256'."""
    sized = setting in ("calibration", "evaluation")
    return SETTINGS[setting].format(str(value).replace("x", "×") if sized else value)


def _differing(table: pd.DataFrame, apart: Collection[str]) -> list[str]:
    return [name for name in SETTINGS if name not in apart and table[name].nunique() > 1]


def spread(table: pd.DataFrame, metric: str, over: str = "seed") -> pd.DataFrame:
    """The spread of `metric` over seeds or orders, a row a method and setting.

    over: the column that is averaged over. Unlike runs are never averaged: whatever else differs has rows of its own.

    Returns:
        method, calibration, windows, the other settings that differ, runs, mean, least, most, range, low, high; the
        last two are the ends of a 95 % t-interval of the mean.
    """
    import pandas as pd

    others = _differing(table, (over, "calibration", "length"))
    by = ["method", "calibration", "windows", *others]
    rows = []
    for key, part in table.dropna(subset=[metric]).groupby(by, sort=False):
        values = part[metric].to_numpy(float)
        half = half_width(values)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "runs": len(values),
                "mean": values.mean(),
                "least": values.min(),
                "most": values.max(),
                "range": _exact(values.max() - values.min(), values),
                "low": values.mean() - half,
                "high": values.mean() + half,
            }
        )
    return pd.DataFrame(rows, columns=[*by, "runs", "mean", "least", "most", "range", "low", "high"])


def _exact(difference: float, values: np.ndarray) -> float:
    """The difference, or 0 where it is only the rounding of a sum taken in another order."""
    return 0.0 if difference < 1e-9 * float(np.abs(values).max()) else float(difference)


def half_width(values: np.ndarray) -> float:
    """Half of the 95 % t-interval of the mean of `values` (n,); NaN for fewer than two."""
    n = len(values)
    if n < 2:
        return math.nan
    from scipy.stats import t  # slow to import, and not every page that reads a group needs it

    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))


@dataclass(frozen=True)
class Gap:
    """Two methods on the same windows: the mean difference (second minus first, at least 0) over `runs` draws.

    half: half of its 95 % t-interval. lower: in how many draws the first was the lower one.
    """

    first: str
    second: str
    runs: int
    mean: float
    half: float
    lower: int
    widest: float

    @property
    def clear(self) -> bool:
        """True where the 95 % interval of the paired difference leaves out 0."""
        return self.runs > 1 and self.mean > self.half

    def in_words(self, what: str = "seeds") -> str:
        """The verdict, in one or two sentences. what: seeds or orders; all orders are no sample of anything."""
        gap = f"{self.first} is lower than {self.second} by {self.mean:.3g} on average"
        if what == "orders":
            always = "in every order" if self.lower == self.runs else f"in {self.lower} of {self.runs} orders"
            decides = "" if self.lower == self.runs else ": which one wins depends on the order"
            return f"{gap}, {always}{decides}."
        if self.runs < 2:
            return f"{gap}, in one run: that says nothing about chance; repeat it."
        least, most = self.mean - self.half, self.mean + self.half
        interval = f"95 % interval of the gap {least:.3g} to {most:.3g}".replace("-", "−")
        count = f"lower in {self.lower} of {self.runs} {what}"
        if not self.clear:
            return f"{gap}, but this is within chance: {count}, {interval}."
        beside = (
            "It is larger than the spread of either method"
            if self.mean > self.widest
            else f"It is smaller than the spread over {self.runs} {what}, but steady where both saw the same text"
        )
        return f"{gap}, more than chance: {count}, {interval}. {beside}."


def gaps(table: pd.DataFrame, metric: str, over: str = "seed") -> list[Gap]:
    """Every pair of methods, the lower first, by their means.

    table: one part of `alike`; there, methods of the same seed, or order, have seen the same windows, and are paired
    unless a text has changed in between.
    """
    wide = without_dense(table).pivot_table(
        index=[over, "texts"], columns="method", values=metric, sort=False
    )
    means = wide.mean().sort_values()
    found = []
    for first, second in itertools.combinations(means.index, 2):
        pair = wide[[first, second]].dropna()
        if len(pair):
            difference = (pair[second] - pair[first]).to_numpy(float)
            ranges = (pair.max() - pair.min()).max()
            found.append(
                Gap(
                    str(first),
                    str(second),
                    len(pair),
                    float(difference.mean()),
                    half_width(difference),
                    int((difference > 0).sum()),
                    float(ranges),
                )
            )
    return found


def order_in_words(table: pd.DataFrame, metric: str) -> list[str]:
    """For each method, the range over the orders, and which order is best and worst. table: one part of `alike`."""
    sentences = []
    for method, part in without_dense(table).dropna(subset=[metric]).groupby("method", sort=False):
        values = part[metric].to_numpy(float)
        if _exact(values.max() - values.min(), values) == 0:
            sentences.append(f"{method}: {values[0]:.4g} in every order.")
            continue
        best, worst = part.loc[part[metric].idxmin(), "order"], part.loc[part[metric].idxmax(), "order"]
        sentences.append(
            f"{method}: from {values.min():.4g} ({best}) to {values.max():.4g} ({worst}), "
            f"a spread of {values.max() - values.min():.3g}."
        )
    return sentences


def neighbours(found: Sequence[Gap]) -> list[Gap]:
    """Of all pairs, those next to each other in the ranking, which a reader of the figure compares."""
    ranked = list(dict.fromkeys(name for gap in found for name in (gap.first, gap.second)))
    place = {name: index for index, name in enumerate(ranked)}
    return [gap for gap in found if place[gap.second] - place[gap.first] == 1]


def verdicts(table: pd.DataFrame, metric: str, over: str, most: int | None = None) -> list[str]:
    """Say of each part of like runs how much the order matters, and whether gaps are more than chance.

    most: gaps a part.
    """
    sentences = []
    for part_words, part in alike(table, over):
        found = order_in_words(part, metric) if over == "order" else []
        found += [gap.in_words(f"{over}s") for gap in neighbours(gaps(part, metric, over))[:most]]
        sentences += [f"{part_words}: {sentence}" if part_words else sentence for sentence in found]
    return sentences


def pareto(table: pd.DataFrame, first: str, second: str) -> pd.Series:
    """True for rows that no other row beats: at least as low in both columns, and lower in one; never with gaps."""
    import pandas as pd

    values = table[[first, second]].to_numpy(dtype=float)
    whole = np.isfinite(values).all(axis=1)
    beaten = [bool(((values <= row).all(axis=1) & (values < row).any(axis=1)).any()) for row in values]
    return pd.Series(whole & ~np.array(beaten, dtype=bool), index=table.index, dtype=bool)
