"""What each domain costs over the steps: perplexity matrix, forgetting curves, backward transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core import metrics
from copal_core.figures.layers import Range
from copal_core.figures.numbers import compact, signed
from copal_core.figures.template import (
    DENSE_COLOUR,
    SEQUENTIAL,
    figure,
    label,
    method_colour,
    method_dash,
)
from copal_core.results import perplexity_matrix

LOWER = "lower is better"


def matrix_table(perplexity: pd.DataFrame, method: str, domains: Sequence[str]) -> pd.DataFrame:
    """One row a step (0 is the dense model), one column a domain; NaN where not computed yet."""
    matrix = perplexity_matrix(perplexity, method, list(domains))
    steps = ["dense", *(f"step {index}" for index in range(1, len(domains) + 1))]
    return pd.DataFrame(matrix, columns=list(domains), index=pd.Index(steps, name="step"))


def ratio_range(tables: Sequence[pd.DataFrame]) -> Range:
    """One range of log2(perplexity / dense) for all matrices that are compared, from 0."""
    values = np.concatenate([_ratios(table).ravel() for table in tables]) if tables else np.array([])
    values = values[np.isfinite(values)]
    return (min(0.0, float(values.min())), max(0.1, float(values.max()))) if len(values) else (0.0, 1.0)


def matrix_figure(table: pd.DataFrame, colours: Range) -> go.Figure:
    """The perplexity matrix; a cell's colour is how many times the dense perplexity it is."""
    ratios = _ratios(table)
    values = table.to_numpy(float)
    ticks = np.linspace(colours[0], colours[1], 4)
    heatmap = go.Heatmap(
        z=ratios,
        x=list(range(table.shape[1])),
        y=list(range(table.shape[0])),
        zmin=colours[0],
        zmax=colours[1],
        colorscale=SEQUENTIAL,
        reversescale=True,  # dark is far from dense
        xgap=2,
        ygap=2,
        text=[[compact(value) for value in row] for row in values],
        texttemplate="%{text}",
        customdata=[[f"{compact(2.0**ratio)} × dense" for ratio in row] for row in ratios],
        hovertemplate="perplexity %{text}<br>%{customdata}<extra></extra>",
        colorbar={"tickvals": ticks, "ticktext": [f"×{compact(2.0**tick)}" for tick in ticks]},
    )
    made = figure(heatmap, height=90 + 40 * len(table))
    made.update_xaxes(
        tickvals=list(range(table.shape[1])),
        ticktext=[label(name) for name in table.columns],
        fixedrange=True,
        side="top",
    )
    made.update_yaxes(
        tickvals=list(range(len(table))), ticktext=[label(name) for name in table.index],
        autorange="reversed", fixedrange=True, showgrid=False,
    )  # fmt: skip
    return made


def curve_table(
    perplexity: pd.DataFrame, methods: Sequence[str], domains: Sequence[str], domain: str
) -> pd.DataFrame:
    """step, then one column a method: perplexity on `domain` after each step; step 0 is the dense model."""
    column = list(domains).index(domain)
    table = pd.DataFrame({"step": range(len(domains) + 1)})
    for method in methods:
        table[method] = perplexity_matrix(perplexity, method, list(domains))[:, column]
    return table


def curve_figure(table: pd.DataFrame, added: int) -> go.Figure:
    """Perplexity of one domain over the steps by method; the dense model is the grey line.

    added: the step in which the domain itself was added (1-based), marked in the figure.
    """
    dense = table.iloc[0, 1] if table.shape[1] > 1 else np.nan
    made = figure(height=280)
    made.add_vrect(
        x0=added - 0.08, x1=added + 0.08, fillcolor=DENSE_COLOUR, opacity=0.2, line_width=0, layer="below"
    )
    if np.isfinite(dense):
        made.add_hline(y=dense, line={"color": DENSE_COLOUR, "width": 2, "dash": "longdash"})
    for method in table.columns[1:]:
        made.add_scatter(
            x=table["step"][1:],
            y=table[method][1:],
            mode="lines+markers",
            name=label(method),
            line={"color": method_colour(method), "dash": method_dash(method), "width": 2.2},
            hovertemplate=f"{label(method)}<br>after step %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    values = table.iloc[1:, 1:].to_numpy(float)
    values = values[np.isfinite(values)]
    spread = len(values) and values.min() > 0 and values.max() / values.min() > 8
    made.update_xaxes(title="step", dtick=1, range=[0.8, len(table) - 0.8], fixedrange=True)
    made.update_yaxes(
        title="perplexity", type="log" if spread else "linear", tickformat="~s", nticks=6, fixedrange=True
    )
    if spread:
        made.update_yaxes(dtick="D2" if values.max() / values.min() < 100 else 1)
    return made


def summary_table(perplexity: pd.DataFrame, methods: Sequence[str], domains: Sequence[str]) -> pd.DataFrame:
    """method, average, backward_transfer, largest_forgetting; unfinished methods are left out."""
    rows = []
    for method in methods:
        R = perplexity_matrix(perplexity, method, list(domains))
        if np.isfinite(R).all():
            rows.append(
                {
                    "method": method,
                    "average": metrics.average_perplexity(R),
                    "backward_transfer": metrics.backward_transfer(R),
                    "largest_forgetting": float(metrics.forgetting(R).max()),
                }
            )
    return pd.DataFrame(rows, columns=["method", "average", "backward_transfer", "largest_forgetting"])


def dense_average(perplexity: pd.DataFrame, domains: Sequence[str]) -> float:
    """Mean perplexity of the dense model over the domains; NaN before it was computed."""
    return float(perplexity_matrix(perplexity, "dense", list(domains))[0].mean())


def transfer_figure(summary: pd.DataFrame) -> go.Figure:
    """Backward transfer by method; the dense model, which never changes, is the line at 0."""
    return _bars(summary, "backward_transfer", "backward transfer (perplexity)", 0.0, signed)


def average_figure(summary: pd.DataFrame, dense: float) -> go.Figure:
    """Average final perplexity by method, with the dense model's line."""
    return _bars(summary, "average", "average perplexity", dense, compact)


def _bars(summary: pd.DataFrame, column: str, title: str, line: float, text: object) -> go.Figure:
    ordered = summary.dropna(subset=[column]).sort_values(column, ascending=False)
    values = ordered[column].astype(float)
    bars = go.Bar(
        x=values,
        y=[label(method) for method in ordered["method"]],
        orientation="h",
        marker={"color": [method_colour(method) for method in ordered["method"]]},
        text=[text(value) for value in values],  # type: ignore[operator]
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}<br>%{text}<extra></extra>",
    )
    made = figure(bars, height=70 + 34 * max(1, len(ordered)), bargap=0.35)
    low, high = (
        min(0.0, float(values.min() if len(values) else 0)),
        max(0.0, float(values.max() if len(values) else 1)),
    )
    pad = 0.18 * ((high - low) or 1)
    made.update_xaxes(
        title=title, fixedrange=True, range=[low - (pad if low < 0 else 0), high + pad], showgrid=True
    )
    made.update_yaxes(fixedrange=True, showgrid=False)
    if np.isfinite(line):
        made.add_vline(x=line, line={"color": DENSE_COLOUR, "width": 2, "dash": "longdash"})
    return made


def _ratios(table: pd.DataFrame) -> np.ndarray:
    """log2 of perplexity over the dense model's."""
    values = table.to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log2(values / values[0])
