"""Loss returned by restoring each part of a model, as ranked bars with the largest at the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.numbers import percent, signed
from copal_core.figures.template import DENSE_COLOUR, KEPT_COLOUR, REVIVED_COLOUR, figure

MOST = 30  # bars; the table contains all parts


def attribution_table(parts: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the columns part, nats, error, share and windows, in the order of the ranking."""
    columns = ["part", "nats", "error", "share", "windows"]
    return pd.DataFrame([[part[name] for name in columns] for part in parts], columns=columns)


def attribution_figure(table: pd.DataFrame, forgotten: float) -> go.Figure:
    """Draw the returned nats with standard errors, of the MOST highest parts at most.

    Args:
        table: as `attribution_table` returns it.
        forgotten: forgetting of the whole model in nats per token, marked by a line if it is within range.
    """
    shown = table.head(MOST)
    colours = [KEPT_COLOUR if value >= 0 else REVIVED_COLOUR for value in shown["nats"]]
    texts = [
        f"{signed(row.nats)} ± {row.error:.2g} nats per token"
        + ("" if pd.isna(row.share) else f"<br>{percent(row.share)} of what was forgotten")
        + f"<br>on {row.windows} window{'s' * (row.windows != 1)}"
        for row in shown.itertuples()
    ]
    bars = go.Bar(
        x=shown["nats"],
        y=shown["part"],
        orientation="h",
        marker={"color": colours},
        error_x={
            "type": "data",
            "array": shown["error"],
            "color": DENSE_COLOUR,
            "thickness": 1.4,
            "width": 3,
        },
        customdata=texts,
        hovertemplate="%{y}<br>%{customdata}<extra></extra>",
    )
    reach = float((shown["nats"] + shown["error"]).max()) if len(shown) else 0.0
    near = 0 < forgotten <= 1.6 * reach
    line = {"color": DENSE_COLOUR, "width": 2, "dash": "longdash"}
    forgotten_line = {
        "type": "line",
        "yref": "y domain",
        "y0": 0,
        "y1": 1,
        "x0": forgotten,
        "x1": forgotten,
        "line": line,
    }
    return figure(
        bars,
        height=90 + 22 * max(3, len(shown)),
        shapes=[forgotten_line] if near else [],
        bargap=0.25,
        xaxis={
            "title": "loss returned, nats per token",
            "fixedrange": True,
            "showgrid": True,
            "zeroline": True,
        },
        yaxis={"autorange": "reversed", "fixedrange": True, "showgrid": False, "type": "category"},
    )
