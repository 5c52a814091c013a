"""Masks against low rank at the same stored bytes: curves, and readings in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.numbers import percent
from copal_core.figures.template import figure, label, log_ticks, method_colour, percent_ticks, upright

LOWEST = 1e-5  # errors below one in 100,000 are drawn there
_DASH = {"mask": "solid", "rank": "dash", "point": "solid"}


def reading_table(readings: Sequence[Any]) -> pd.DataFrame:
    """method, domain, kind, amount, parameters, bytes, error: one row a method and domain at one budget.

    readings: objects with these attributes. amount: share removed of a mask, rank of a decomposition.
    """
    columns = ["method", "domain", "kind", "share", "amount", "parameters", "bytes", "error"]
    return pd.DataFrame([[getattr(one, name) for name in columns] for one in readings], columns=columns)


def curves_figure(curves: pd.DataFrame, readings: pd.DataFrame, domain: str, share: float) -> go.Figure:
    """Relative output error on `domain` over the kept bytes, log y; the budget is marked.

    curves: method, domain, kind, share, error. readings: a `reading_table` at the budget `share`.
    """
    chosen = curves[curves["domain"] == domain]
    error = chosen["error"].to_numpy(float)
    drawn = np.where(error > 0, np.maximum(error, LOWEST), np.nan)
    chosen = chosen.assign(x=chosen["share"].to_numpy(float).round(4), y=drawn)
    traces: list[Any] = [
        {
            "type": "scatter",
            "x": part["x"].to_numpy(),
            "y": part["y"].to_numpy(),
            "mode": "lines",
            "name": label(method),
            "line": {"color": method_colour(f"{method}:none"), "dash": _DASH[str(kind)]},
            "customdata": _hovers(part),
            "hovertemplate": f"{label(method)}<br>%{{customdata}}<extra></extra>",
        }
        for (method, kind), part in chosen[chosen["kind"] != "point"].groupby(["method", "kind"], sort=False)
    ]
    traces += _points(chosen[chosen["kind"] == "point"])
    traces.append(_marks(readings, domain, share))
    found = drawn[np.isfinite(drawn)]
    bottom, top = (float(found.min()), max(1.0, float(found.max()))) if len(found) else (LOWEST, 1.0)
    ticks = log_ticks(np.log10(bottom), np.log10(top))["tickvals"]
    return figure(
        *traces,
        height=320,
        shapes=[upright(share)],
        xaxis={
            "title": "bytes kept",
            "range": [0.0, 1.01],
            "fixedrange": True,
            **percent_ticks(0, 1, 4),
        },
        yaxis={
            "title": "output lost",
            "type": "log",
            "range": [np.log10(bottom) - 0.1, np.log10(top) + 0.1],
            "tickvals": [10.0**tick for tick in ticks],
            "ticktext": [percent(10.0**tick, 3) for tick in ticks],
            "fixedrange": True,
        },
    )


def _points(points: pd.DataFrame) -> list[dict[str, Any]]:
    """Single structures, such as 2:4, as diamonds in their methods' colours."""
    if not len(points):
        return []
    colours = [method_colour(f"{str(name).split()[0]}:none") for name in points["method"]]
    return [
        {
            "type": "scatter",
            "x": points["x"].to_numpy(),
            "y": points["y"].to_numpy(),
            "mode": "markers",
            "marker": {"color": colours, "symbol": "diamond", "size": 9},
            "customdata": [
                f"{label(name)}<br>{words}"
                for name, words in zip(points["method"], _hovers(points), strict=True)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
    ]


def _hovers(points: pd.DataFrame) -> list[str]:
    return [f"{percent(row.x, 0)} of the bytes: {lost(row.error)} lost" for row in points.itertuples()]


def _marks(readings: pd.DataFrame, domain: str, share: float) -> dict[str, Any]:
    """A dot on every curve where the slider stands."""
    at = readings[(readings["domain"] == domain) & (readings["kind"] != "point") & (readings["error"] > 0)]
    return {
        "type": "scatter",
        "x": [share] * len(at),
        "y": at["error"].clip(lower=LOWEST),
        "mode": "markers",
        "marker": {"color": [method_colour(f"{name}:none") for name in at["method"]], "size": 9},
        "hoverinfo": "skip",
    }


def structure_words(kind: str, amount: float, share: float = 0.5) -> str:
    """'removed 50 %', 'rank 162' or, where nothing is taken away, 'dense'."""
    if share >= 1:
        return "dense"
    return f"rank {amount:.0f}" if kind == "rank" else f"removed {percent(amount)}"


def lost(error: float) -> str:
    """An error as people say it: 3.1 %, 0.02 %; tiny ones are less than 0.001 %."""
    if error <= 0:
        return "0 %"
    if error < 1e-5:
        return "< 0.001 %"
    decimals = max(0, 1 - math.floor(math.log10(100 * error)))  # two significant figures
    return percent(error, decimals)


def best_of_each(readings: pd.DataFrame, domain: str) -> tuple[pd.Series | None, pd.Series | None]:
    """The mask and the decomposition that lose least on `domain`; None where there is none."""
    at = readings[readings["domain"] == domain]
    found = []
    for kind in ("mask", "rank"):
        part = at[at["kind"] == kind]
        found.append(part.loc[part["error"].idxmin()] if len(part) else None)
    return found[0], found[1]


def in_words(readings: pd.DataFrame, domain: str, share: float) -> str:
    """What a mask and low rank lose of this layer on `domain` at the same bytes, and which loses less."""
    mask, rank = best_of_each(readings, domain)
    if mask is None or rank is None:
        return "There is nothing to compare."
    if share >= 1:
        return "Nothing is removed and nothing is lost."
    return (
        f"the best mask ({mask['method']}, {structure_words('mask', mask['amount'])}) loses {lost(mask['error'])} of "
        f"this layer's output, the best low rank ({rank['method']}, {structure_words('rank', rank['amount'])}) "
        f"{lost(rank['error'])}. {_verdict(float(mask['error']), float(rank['error']))}"
    )


def _verdict(mask: float, rank: float) -> str:
    if mask <= 0 or rank <= 0:
        return "Here one of them loses nothing."
    ratio = rank / mask
    if 0.95 < ratio < 1.05:
        return "They lose about the same."
    if ratio > 1:
        return f"Low rank loses {_times(ratio)} as much."
    return f"The mask loses {_times(1 / ratio)} as much."


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"
