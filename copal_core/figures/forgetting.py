"""Perplexity of each domain over the steps: perplexity matrix, forgetting curves, backward transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.analysis import metrics
from copal_core.analysis.results import perplexity_matrix
from copal_core.figures.layers import Range
from copal_core.figures.numbers import compact, factor, signed
from copal_core.figures.template import (
    FORGETTING,
    TEXT_ON_CELL,
    band,
    figure,
    label,
    level,
    logarithmic,
    method_colour,
    method_dash,
    upright,
)

SUMMARY = ["method", "average", "backward_transfer", "forward_transfer", "largest_forgetting"]


def matrix_table(perplexity: pd.DataFrame, method: str, domains: Sequence[str]) -> pd.DataFrame:
    """Return perplexities with one row per step (0 is the dense model) and one column per domain; NaN if missing."""
    matrix = perplexity_matrix(perplexity, method, list(domains))
    steps = ["dense", *(f"step {index}" for index in range(1, len(domains) + 1))]
    return pd.DataFrame(matrix, columns=list(domains), index=pd.Index(steps, name="step"))


def ratio_range(tables: Sequence[pd.DataFrame]) -> Range:
    """Return a common range of log2(perplexity / dense) for all matrices that are compared.

    It reaches from 0, the dense model, to the highest value, but at least to twice the dense perplexity, so that a
    small loss is not coloured like a large one.
    """
    values = np.concatenate([_ratios(table).ravel() for table in tables]) if tables else np.array([])
    return 0.0, max(1.0, *values[np.isfinite(values)])


def matrix_figure(table: pd.DataFrame, colours: Range) -> go.Figure:
    """Draw the perplexity matrix; a cell's colour is its ratio to the dense perplexity."""
    ratios = _ratios(table)
    values = table.to_numpy(float)
    ticks = np.linspace(colours[0], colours[1], 4)
    heatmap = go.Heatmap(
        z=ratios,
        x=list(range(table.shape[1])),
        y=list(range(table.shape[0])),
        zmin=colours[0],
        zmax=colours[1],
        colorscale=FORGETTING,
        xgap=2,
        ygap=2,
        text=[[compact(value) for value in row] for row in values],
        texttemplate="%{text}",
        textfont={"color": TEXT_ON_CELL},
        customdata=[[f"{compact(2.0**ratio)} × dense" for ratio in row] for row in ratios],
        hovertemplate="perplexity %{text}<br>%{customdata}<extra></extra>",
        colorbar={"tickvals": ticks, "ticktext": [factor(2.0**tick) for tick in ticks]},
    )
    return figure(
        heatmap,
        height=90 + 40 * len(table),
        xaxis={
            "tickvals": list(range(table.shape[1])),
            "ticktext": [label(name) for name in table.columns],
            "fixedrange": True,
            "side": "top",
        },
        yaxis={
            "tickvals": list(range(len(table))),
            "ticktext": [label(name) for name in table.index],
            "autorange": "reversed",
            "fixedrange": True,
            "showgrid": False,
        },
    )


def curve_table(
    perplexity: pd.DataFrame, methods: Sequence[str], domains: Sequence[str], domain: str
) -> pd.DataFrame:
    """Return step and one column per method: perplexity on `domain` after each step; step 0 is the dense model."""
    column = list(domains).index(domain)
    table = pd.DataFrame({"step": range(len(domains) + 1)})
    for method in methods:
        table[method] = perplexity_matrix(perplexity, method, list(domains))[:, column]
    return table


def curve_figure(table: pd.DataFrame, added: int, beside: Sequence[pd.DataFrame] = ()) -> go.Figure:
    """Draw the perplexity of one domain over the steps by method; the dense model is the grey line.

    Args:
        table: as `curve_table` returns it.
        added: the step (1-based) in which the domain itself was added, marked in the figure.
        beside: tables of the panels shown beside it, so that all have the same kind of axis.
    """
    dense = table.iloc[0, 1] if table.shape[1] > 1 else np.nan
    lines = [
        go.Scatter(
            x=table["step"][1:],
            y=table[method][1:],
            mode="lines+markers",
            name=label(method),
            line={"color": method_colour(method), "dash": method_dash(method), "width": 2.2},
            hovertemplate=f"{label(method)}<br>after step %{{x}}: %{{y:.4g}}<extra></extra>",
        )
        for method in table.columns[1:]
    ]
    panels = [panel.to_numpy(float)[:, 1:].ravel() for panel in (table, *beside)]
    yaxis = {"title": "perplexity", "tickformat": "~s", "nticks": 6, "fixedrange": True}
    if logarithmic(*panels):
        yaxis |= {"type": "log", "dtick": "D2" if _spread(panels[0]) < 100 else 1}
    return figure(
        *lines,
        height=280,
        shapes=[band(added - 0.08, added + 0.08), *([level(dense, 2)] if np.isfinite(dense) else [])],
        xaxis={"title": "step", "dtick": 1, "range": [0.8, len(table) - 0.8], "fixedrange": True},
        yaxis=yaxis,
    )


def summary_table(perplexity: pd.DataFrame, methods: Sequence[str], domains: Sequence[str]) -> pd.DataFrame:
    """Return the columns SUMMARY, one row per finished method.

    The forward transfer is the mean over the domains from the second on.
    """
    rows = []
    for method in methods:
        R = perplexity_matrix(perplexity, method, list(domains))
        if np.isfinite(R).all():
            rows.append(
                {
                    "method": method,
                    "average": metrics.average_perplexity(R),
                    "backward_transfer": metrics.backward_transfer(R),
                    "forward_transfer": metrics.mean_forward_transfer(R),
                    "largest_forgetting": float(metrics.forgetting(R).max()),
                }
            )
    return pd.DataFrame(rows, columns=SUMMARY)


def dense_average(perplexity: pd.DataFrame, domains: Sequence[str]) -> float:
    """Return the dense model's mean perplexity over the domains; NaN before it is computed."""
    return float(perplexity_matrix(perplexity, "dense", list(domains))[0].mean())


def transfer_figure(summary: pd.DataFrame) -> go.Figure:
    """Draw backward transfer by method; the dense model, which never changes, is the line at 0."""
    return _bars(summary, "backward_transfer", "backward transfer (perplexity)", 0.0, signed)


def average_figure(summary: pd.DataFrame, dense: float) -> go.Figure:
    """Draw average final perplexity by method, with a line for the dense model."""
    return _bars(summary, "average", "average perplexity", dense, compact)


def _bars(
    summary: pd.DataFrame, column: str, title: str, line: float, text: Callable[[float], str]
) -> go.Figure:
    ordered = summary.dropna(subset=[column]).sort_values(column, ascending=False)
    methods = ordered["method"].tolist()
    return outcome_bars(ordered[column].astype(float), methods, methods, title, line, text)


def outcome_bars(
    values: pd.Series,
    names: Sequence[str],
    methods: Sequence[str],
    title: str,
    line: float,
    text: Callable[[float], str],
) -> go.Figure:
    """Draw one bar per value in its method's colour, and a line for the dense model.

    Args:
        values: the bars' lengths, from bottom to top.
        names: their labels.
        methods: their methods.
        title: of the axis.
        line: value of the dense model; NaN for no line.
        text: formats a value.
    """
    bars = go.Bar(
        x=values,
        # options on a separate line leave more space for the bars
        y=[label(name).replace("[", "<br>[") for name in names],
        orientation="h",
        marker={"color": [method_colour(method) for method in methods]},
        text=[text(value) for value in values],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}<br>%{text}<extra></extra>",
    )
    low, high = (min(0.0, values.min()), max(0.0, values.max())) if len(values) else (0.0, 1.0)
    pad = 0.24 * ((high - low) or 1)  # space for the numbers, also on a narrow screen
    ends = [low - (pad if low < 0 else 0), high + pad]
    axis = {"title": title, "fixedrange": True, "range": ends, "showgrid": True, "nticks": 5, "tickangle": 0}
    return figure(
        bars,
        height=95 + 32 * max(1, len(values)),
        bargap=0.35,
        shapes=[upright(line)] if np.isfinite(line) else [],
        xaxis=axis,
        yaxis={"fixedrange": True, "showgrid": False},
    )


def _spread(values: np.ndarray) -> float:
    """Return the ratio of the largest to the smallest positive value."""
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.max() / values.min()) if len(values) else 1.0


def _ratios(table: pd.DataFrame) -> np.ndarray:
    """Return log2(perplexity / dense), of the table's shape."""
    values = table.to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log2(values / values[0])
