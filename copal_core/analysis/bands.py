"""What a group of runs says about chance: each method's spread, and whether a gap between two is more than that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from copal_core.analysis import metrics
from copal_core.analysis.results import perplexity_matrix

if TYPE_CHECKING:
    import pandas as pd

    from copal_core.store.run_store import RunStore

METRICS = {
    "average": "Average perplexity after the last domain",
    "ratio": "Average perplexity over the dense model's",
    "backward_transfer": "Backward transfer",
}


def outcomes(stores: Sequence[RunStore]) -> pd.DataFrame:
    """One row a run and method: run, seed, calibration, windows, order, method, average, ratio, backward_transfer.

    The dense model is a method among them, without backward transfer. Unfinished methods are left out. `ratio` is
    the mean over the domains of perplexity after the last step over the dense model's on the same windows.
    """
    import pandas as pd

    rows = []
    for store in stores:
        protocol, domains, table = store.config.protocol, store.domains, store.perplexity()
        setting = {
            "run": store.id,
            "seed": protocol.seed,
            "calibration": str(protocol.calibration),
            "windows": protocol.calibration.count,
            "order": " → ".join(domains),
        }
        for method in ["dense", *(str(method) for method in store.config.methods)]:
            R = perplexity_matrix(table, method, domains)
            last = R[0] if method == "dense" else R[-1]
            if np.isfinite(last).all() and np.isfinite(R[0]).all():
                complete = method != "dense" and bool(np.isfinite(R).all())
                rows.append(
                    {
                        **setting,
                        "method": method,
                        "average": float(last.mean()),
                        "ratio": float((last / R[0]).mean()),
                        "backward_transfer": metrics.backward_transfer(R) if complete else None,
                    }
                )
    columns = ["run", "seed", "calibration", "windows", "order", "method", *METRICS]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(METRICS, float))


def spread(table: pd.DataFrame, metric: str, by: Sequence[str] = ("calibration", "windows")) -> pd.DataFrame:
    """method, `by`, runs, mean, least, most, range, low, high of `metric`; the last two: 95 % t-interval."""
    import pandas as pd

    rows = []
    for key, part in table.dropna(subset=[metric]).groupby(["method", *by], sort=False):
        values = part[metric].to_numpy(float)
        half = half_width(values)
        rows.append(
            {
                **dict(zip(("method", *by), key, strict=True)),
                "runs": len(values),
                "mean": values.mean(),
                "least": values.min(),
                "most": values.max(),
                "range": _exact(values.max() - values.min(), values),
                "low": values.mean() - half,
                "high": values.mean() + half,
            }
        )
    columns = ["method", *by, "runs", "mean", "least", "most", "range", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _exact(difference: float, values: np.ndarray) -> float:
    """A difference that is only the rounding of a sum taken in another order is none."""
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
        """Whether the 95 % interval of the paired difference leaves out 0."""
        return self.runs > 1 and self.mean > self.half

    def in_words(self, what: str = "seeds") -> str:
        """The verdict, in one or two sentences. what: seeds, runs or orders; all orders are no sample of anything."""
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


def gaps(table: pd.DataFrame, metric: str, pair_by: str = "run") -> list[Gap]:
    """Every pair of methods, the lower first, by their means; paired by run, for a run's methods share its windows."""
    wide = table[table["method"] != "dense"].pivot_table(
        index=pair_by, columns="method", values=metric, sort=False
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
    """For each method, the range over the orders, and which order is best and worst. table: of `outcomes`."""
    sentences = []
    for method, part in (
        table[table["method"] != "dense"].dropna(subset=[metric]).groupby("method", sort=False)
    ):
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
    """Of all pairs, those next to each other in the ranking: what a reader of the figure compares."""
    ranked = list(dict.fromkeys(name for gap in found for name in (gap.first, gap.second)))
    place = {name: index for index, name in enumerate(ranked)}
    return [gap for gap in found if place[gap.second] - place[gap.first] == 1]
