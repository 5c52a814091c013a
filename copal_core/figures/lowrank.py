"""Masks compared with low rank at the same stored bytes: curves, and values in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.numbers import percent
from copal_core.figures.template import figure, label, log_ticks, method_colour, percent_ticks, upright

LOWEST = 1e-5  # smaller errors are drawn at this value
_DASH = {"mask": "solid", "rank": "dash", "point": "solid"}


def reading_table(readings: Sequence[Any]) -> pd.DataFrame:
    """Return one row per method and domain at one budget.

    Args:
        readings: objects with the attributes method, domain, kind, share, amount (the share removed by a mask, or
            the rank of a decomposition), parameters, bytes and error.
    """
    columns = ["method", "domain", "kind", "share", "amount", "parameters", "bytes", "error"]
    rows = [[getattr(reading, name) for name in columns] for reading in readings]
    return pd.DataFrame(rows, columns=columns)


def curves_figure(curves: pd.DataFrame, readings: pd.DataFrame, domain: str, share: float) -> go.Figure:
    """Draw the relative output error on one domain over the bytes kept, with a logarithmic error axis.

    Args:
        curves: columns method, domain, kind, share and error.
        readings: as `reading_table` returns it, at the budget `share`.
        domain: to draw.
        share: budget to mark, as a share of the dense bytes.
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
    finite = drawn[np.isfinite(drawn)]
    bottom, top = (float(finite.min()), max(1.0, float(finite.max()))) if len(finite) else (LOWEST, 1.0)
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
    """Draw structures of one fixed size, such as 2:4, as diamonds in their methods' colours."""
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
    """Draw a dot on every curve at the slider's budget."""
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
    """Return 'removed 50 %', 'rank 162' or, at a share of 1, 'dense'."""
    if share >= 1:
        return "dense"
    return f"rank {amount:.0f}" if kind == "rank" else f"removed {percent(amount)}"


def lost(error: float) -> str:
    """Format an error with two significant figures: 3.1 %, 0.02 %, or < 0.001 %."""
    if error <= 0:
        return "0 %"
    if error < 1e-5:
        return "< 0.001 %"
    decimals = max(0, 1 - math.floor(math.log10(100 * error)))
    return percent(error, decimals)


def best_of_each(readings: pd.DataFrame, domain: str) -> tuple[pd.Series | None, pd.Series | None]:
    """Return the mask and the decomposition with the least error on `domain`; None where there is none."""
    on_domain = readings[readings["domain"] == domain]
    best = []
    for kind in ("mask", "rank"):
        part = on_domain[on_domain["kind"] == kind]
        best.append(part.loc[part["error"].idxmin()] if len(part) else None)
    return best[0], best[1]


def in_words(readings: pd.DataFrame, domain: str, share: float) -> str:
    """Compare the best mask with the best low rank on `domain` at the same bytes, in one or two sentences."""
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
