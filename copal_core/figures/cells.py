"""Details of one linear layer: pooled weight map, scores, rows and heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from copal_core.figures.layers import Range
from copal_core.figures.numbers import compact, percent, power
from copal_core.figures.template import (
    KEPT_COLOUR,
    PRUNED_COLOUR,
    SEQUENTIAL,
    band,
    figure,
    log_ticks,
    logarithmic,
    percent_ticks,
    upright,
)

Tiles = Mapping[str, NDArray[Any]]
_THRESHOLD = "#D55E00"
_NOTHING = 1e-25  # a tile of pruned weights only scores zero, which has no logarithm


def score_range(*tiles: Tiles) -> Range:
    """Return a common log10 colour range for all weight maps that are compared."""
    positive = [tile["score"][tile["score"] > _NOTHING] for tile in tiles if "score" in tile]
    values = np.log10(np.concatenate(positive).astype(float)) if positive else np.array([])
    if not len(values):
        return (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-6 else (low - 0.05, high + 0.05)


def map_table(tiles: Tiles, kind: str) -> pd.DataFrame:
    """Return the pooled map as a table with one row per pooled output and one column per pooled input."""
    values = np.asarray(tiles[kind], dtype=float)
    return pd.DataFrame(values, columns=[f"in {index}" for index in range(values.shape[1])])


def score_map(tiles: Tiles, shape: tuple[int, int], colours: Range) -> go.Figure:
    """Draw the mean score of each tile of the (out, in) weight, coloured by its logarithm."""
    scores = np.asarray(tiles["score"], dtype=float)
    z = np.log10(np.where(scores > _NOTHING, scores, np.nan))
    return _weight_map(z, shape, colours, log_ticks(*colours), "score %{customdata:.3g}", scores)


def kept_map(tiles: Tiles, shape: tuple[int, int]) -> go.Figure:
    """Draw the share of weights kept in each tile, on a fixed scale from 0 to 100 %."""
    kept = np.asarray(tiles["kept"], dtype=float)
    ticks = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0 %", "25 %", "50 %", "75 %", "100 %"]}
    shares = np.vectorize(percent, otypes=[object])(kept, 0)
    return _weight_map(kept, shape, (0.0, 1.0), ticks, "%{customdata} kept", shares)


def _weight_map(
    z: NDArray[Any],
    shape: tuple[int, int],
    colours: Range,
    ticks: dict[str, Any],
    hover: str,
    customdata: NDArray[Any] | None = None,
) -> go.Figure:
    rows, columns = z.shape
    heatmap = go.Heatmap(
        z=z,
        x=(np.arange(columns) + 0.5) * shape[1] / columns,
        y=(np.arange(rows) + 0.5) * shape[0] / rows,
        customdata=customdata,
        hovertemplate="outputs near %{y:.0f} · inputs near %{x:.0f}<br>" + hover + "<extra></extra>",
        zmin=colours[0],
        zmax=colours[1],
        colorscale=SEQUENTIAL,
        colorbar={"tickmode": "array", **ticks},
    )
    return figure(
        heatmap,
        height=380,
        xaxis={"title": "input feature", "fixedrange": True, "range": [0, shape[1]], "nticks": 6},
        yaxis={
            "title": "output neuron",
            "fixedrange": True,
            "range": [shape[0], 0],
            "showgrid": False,
            "nticks": 6,
        },
    )


def histogram_table(tiles: Tiles) -> pd.DataFrame:
    """Return the columns score_from, score_to, kept and pruned: weights in each bin of log10(score)."""
    edges, counts = np.asarray(tiles["edges"], dtype=float), np.asarray(tiles["histogram"])
    return pd.DataFrame(
        {
            "score_from": 10.0 ** edges[:-1],
            "score_to": 10.0 ** edges[1:],
            "kept": counts[0],
            "pruned": counts[1],
        }
    )


def histogram_figure(table: pd.DataFrame, threshold: tuple[float, float, float] | None) -> go.Figure:
    """Draw kept and pruned weights by score.

    Args:
        table: as `histogram_table` returns it.
        threshold: quantiles (5 %, 50 %, 95 %) of the threshold over the comparison groups, if there is one.
    """
    low, high = np.log10(table["score_from"]), np.log10(table["score_to"])
    centres, widths = (low + high) / 2, high - low
    traces = [
        go.Bar(
            x=centres,
            y=table[column],
            width=widths,
            name=column,
            marker={"color": colour},
            customdata=[
                f"{compact(a)} to {compact(b)}"
                for a, b in zip(table["score_from"], table["score_to"], strict=True)
            ],
            hovertemplate=f"score %{{customdata}}<br>%{{y:.3s}} {column}<extra></extra>",
        )
        for column, colour in (("pruned", PRUNED_COLOUR), ("kept", KEPT_COLOUR))
    ]
    first, last = int(np.floor(low.min())), int(np.ceil(high.max()))
    ticks = list(range(first, last + 1, max(1, (last - first) // 6)))
    xaxis = {
        "title": "score (log scale)",
        "tickvals": ticks,
        "ticktext": [f"10{power(tick)}" for tick in ticks],
    }
    return figure(
        *traces,
        height=380,
        barmode="stack",
        bargap=0.04,
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        shapes=_threshold_marks(threshold),
        xaxis={**xaxis, "fixedrange": True},
        yaxis={"title": "weights", "tickformat": "~s", "nticks": 8, "fixedrange": True},
    )


def _threshold_marks(threshold: tuple[float, float, float] | None) -> list[dict[str, Any]]:
    if threshold is None or not all(value > 0 for value in threshold):
        return []
    low, middle, high = np.log10(threshold)
    spread = [band(low, high, _THRESHOLD)] if high > low else []
    return [*spread, upright(middle, _THRESHOLD, "solid")]


def rows_table(tiles: Tiles, rows: int) -> pd.DataFrame:
    """Return the columns row (centre of each pooled group of output neurons) and kept."""
    kept = np.asarray(tiles["row_kept"], dtype=float)
    return pd.DataFrame({"row": (np.arange(len(kept)) + 0.5) * rows / max(1, len(kept)), "kept": kept})


def rows_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the share kept along the output neurons."""
    line = go.Scatter(
        x=table["row"],
        y=table["kept"],
        mode="lines",
        line={"color": KEPT_COLOUR, "shape": "hvh"},
        customdata=[percent(share) for share in table["kept"]],
        hovertemplate="outputs near %{x:.0f}<br>%{customdata} kept<extra></extra>",
    )
    return figure(
        line,
        height=240,
        xaxis={"title": "output neuron", "fixedrange": True},
        yaxis={"title": "share kept", "range": [0, 1.02], "fixedrange": True, **percent_ticks(0, 1)},
    )


def heads_table(tiles: Tiles) -> pd.DataFrame | None:
    """Return the columns head, kept and score; None for layers without heads."""
    if "head_kept" not in tiles or not len(tiles["head_kept"]):
        return None
    kept, score = (np.asarray(tiles[name], dtype=float) for name in ("head_kept", "head_score"))
    return pd.DataFrame({"head": range(len(kept)), "kept": kept, "score": score})


def heads_figure(table: pd.DataFrame, beside: Sequence[pd.DataFrame] = ()) -> go.Figure:
    """Draw the mean score of each attention head; the hover text shows the share kept.

    Args:
        table: as `heads_table` returns it.
        beside: tables of the figures shown beside it; the axis is logarithmic if scores span decades in any of them.
    """
    marks = go.Scatter(
        x=table["head"],
        y=table["score"],
        mode="markers",
        marker={"color": KEPT_COLOUR, "size": 11},
        customdata=[percent(share) for share in table["kept"]],
        hovertemplate="head %{x}<br>mean score %{y:.3g}<br>%{customdata} kept<extra></extra>",
    )
    scores = [heads["score"].to_numpy(float) for heads in (table, *beside)]
    wide = all((values > 0).all() for values in scores) and logarithmic(*scores)
    scale = {"type": "log", "exponentformat": "power", "nticks": 5} if wide else {"rangemode": "tozero"}
    return figure(
        marks,
        height=240,
        xaxis={"title": "head", "fixedrange": True, "dtick": max(1, len(table) // 12)},
        yaxis={"title": "mean score", "fixedrange": True, **scale},
    )
