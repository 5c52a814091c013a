"""Distribution of a checkpoint's parameters over its parts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.numbers import count, percent
from copal_core.figures.template import DENSE_COLOUR, figure

PRUNABLE = ("attention", "mlp")
_NAMES = {"mlp": "MLP", "embedding": "embeddings", "head": "output head"}
_COLOURS = {
    "attention": "#0072B2",
    "mlp": "#56B4E9",
    "embedding": "#A6A6A6",
    "head": "#7A7A7A",
    "norms": "#5C5C5C",
}


def parameter_table(parameters: Mapping[str, int]) -> pd.DataFrame:
    """Return part, parameters, share and prunable of every part that has parameters."""
    total = sum(parameters.values()) or 1
    rows = [(part, value, value / total, part in PRUNABLE) for part, value in parameters.items() if value]
    return pd.DataFrame(rows, columns=["part", "parameters", "share", "prunable"])


def parameter_figure(table: pd.DataFrame) -> go.Figure:
    """Draw one bar of all parameters, divided by part; blue parts can be pruned, grey ones never are."""
    bars = [
        go.Bar(
            x=[row.parameters],
            y=[""],
            orientation="h",
            name=_NAMES.get(row.part, row.part),
            marker={"color": _COLOURS.get(row.part, DENSE_COLOUR)},
            text=[percent(row.share, 0)] if row.share > 0.08 else None,
            textposition="inside",
            textfont={"color": "#FFFFFF" if row.part == "attention" else "#1A1A1A"},
            insidetextanchor="middle",
            hovertemplate=f"{row.part}: {count(row.parameters)} ({percent(row.share)})<extra></extra>",
        )
        for row in table.itertuples()
    ]
    total = max(1, int(table["parameters"].sum()))
    return figure(
        *bars,
        height=130,
        barmode="stack",
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        xaxis={"visible": False, "fixedrange": True, "range": [0, total]},
        yaxis={"visible": False, "fixedrange": True},
    )
