"""Several runs in one figure: spread over seeds and sizes, spread over orders, and runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from copal_core.figures.forgetting import outcome_bars
from copal_core.figures.numbers import compact, signed
from copal_core.figures.template import (
    DENSE_COLOUR,
    figure,
    label,
    level,
    method_colour,
    method_dash,
    upright,
)

AXES = {
    "average": "average perplexity",
    "ratio": "times the dense model's perplexity",
    "backward_transfer": "backward transfer (perplexity)",
}
_WRAP = 4  # domains of an order that fit a line of a hover


def strip_figure(table: pd.DataFrame, metric: str, what: str = "seed") -> go.Figure:
    """Each run a dot, each method a row; the bar spans the least to the most, the tick is the mean.

    table: of `bands.outcomes`. what: the column that tells a method's dots apart.
    """
    table = table.dropna(subset=[metric])
    methods = _ranked(table, metric)
    traces: list[Any] = []
    for row, method in enumerate(methods):
        part = table[table["method"] == method]
        values, colour = part[metric].astype(float), method_colour(method)
        ends = [values.min(), values.max()]
        traces.append(
            go.Scatter(
                x=ends,
                y=[row, row],
                mode="lines",
                line={"color": colour, "width": 14},
                opacity=0.25,
                hoverinfo="skip",
            )
        )
        traces.append(
            go.Scatter(
                x=values,
                y=[row] * len(part),
                mode="markers",
                marker={"color": colour, "size": 9, "line": {"width": 1, "color": "rgba(255,255,255,0.7)"}},
                customdata=[f"{what} {label(_folded(value))}" for value in part[what]],
                name=label(method),
                hovertemplate=f"{label(method)}<br>%{{customdata}}<br>%{{x:.4g}}<extra></extra>",
            )
        )
        traces.append(
            go.Scatter(
                x=[values.mean()],
                y=[row],
                mode="markers",
                marker={"symbol": "line-ns", "size": 24, "line": {"width": 2.5, "color": colour}},
                hovertemplate=f"{label(method)}<br>mean of {len(part)}: %{{x:.4g}}<extra></extra>",
            )
        )
    return figure(
        *traces,
        height=80 + 42 * max(1, len(methods)),
        shapes=_reference(metric),
        xaxis={"title": AXES[metric], "showgrid": True, "fixedrange": True, **_scale(table, metric)},
        yaxis={
            "tickvals": list(range(len(methods))),
            "ticktext": [label(_name(method)) for method in methods],
            "range": [len(methods) - 0.4, -0.6],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
    )


def band_figure(spread: pd.DataFrame, metric: str) -> go.Figure:
    """Mean over seeds against the number of calibration windows, the band from the least to the most seed.

    spread: of `bands.spread`, by calibration and windows.
    """
    traces: list[Any] = []
    for method in dict.fromkeys(spread["method"]):
        part = spread[spread["method"] == method].sort_values("windows")
        colour = method_colour(method)
        around = [*part["most"], *part["least"][::-1]]
        traces.append(
            go.Scatter(
                x=[*part["windows"], *part["windows"][::-1]],
                y=around,
                fill="toself",
                fillcolor=f"rgba{(*hex_to_rgb(colour), 0.18)}",
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
            )
        )
        traces.append(
            go.Scatter(
                x=part["windows"],
                y=part["mean"],
                mode="lines+markers",
                line={"color": colour, "dash": method_dash(method), "width": 2.2},
                customdata=[
                    f"{compact(low)} to {compact(high)}"
                    for low, high in zip(part["least"], part["most"], strict=True)
                ],
                name=label(method),
                hovertemplate=f"{label(_name(method))}<br>%{{x}} windows: %{{y:.4g}}<br>"
                "from %{customdata}<extra></extra>",
            )
        )
    sizes = sorted({int(value) for value in spread["windows"]})
    return figure(
        *traces,
        height=360,
        shapes=[level(0.0)] if metric == "backward_transfer" else [],
        xaxis={
            "title": "calibration windows",
            "type": "log",
            "tickvals": sizes,
            "ticktext": [str(size) for size in sizes],
            "fixedrange": True,
        },
        yaxis={"title": AXES[metric], "tickformat": "~s", "nticks": 6, "fixedrange": True},
    )


def side_by_side_figure(table: pd.DataFrame, metric: str, dense: float) -> go.Figure:
    """One bar a run and method. table: letter, method, average, backward_transfer. `dense` is a line."""
    table = table.dropna(subset=[metric]).sort_values([metric], ascending=False)
    text = signed if metric == "backward_transfer" else compact
    names = [f"{row.letter}  {row.method}" for row in table.itertuples()]
    return outcome_bars(
        table[metric].astype(float), names, table["method"].tolist(), AXES[metric], dense, text
    )


def _ranked(table: pd.DataFrame, metric: str) -> list[str]:
    """Methods by their mean, the lowest first; the dense model before them."""
    means = table.groupby("method")[metric].mean().sort_values()
    return sorted(means.index, key=lambda name: (name != "dense", float(means[name])))


def _name(method: str) -> str:
    return "dense model" if method == "dense" else method


def _folded(value: object) -> str:
    """A long order on several lines of a hover."""
    parts = str(value).split(" → ")
    lines = [" → ".join(parts[at : at + _WRAP]) for at in range(0, len(parts), _WRAP)]
    return " → ".join(lines)


def _reference(metric: str) -> list[dict[str, Any]]:
    at = {"ratio": 1.0, "backward_transfer": 0.0}.get(metric)
    return [] if at is None else [upright(at, DENSE_COLOUR)]


def _scale(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Logarithmic where the values span more than a decade; they never do below zero."""
    values = table[metric].to_numpy(float)
    if (
        metric != "backward_transfer"
        and len(values)
        and values.min() > 0
        and values.max() / values.min() > 10
    ):
        return {"type": "log", "dtick": "D2" if values.max() / values.min() < 100 else 1}
    return {"tickformat": "~s", "nticks": 7}


def runs_named(count: int) -> Sequence[str]:
    """Letters for runs that are compared: A, B, C ..."""
    return [chr(ord("A") + index) for index in range(count)]
