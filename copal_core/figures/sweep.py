"""A sweep: every run a point, the front of those that nothing beats, and small multiples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.numbers import compact, percent, signed, size
from copal_core.figures.template import DENSE_COLOUR, figure, label, level, method_colour, method_dash

AXES = {
    "kept": "bytes kept",
    "bytes": "stored bytes of the layers",
    "average": "average perplexity",
    "ratio": "times the dense model's perplexity",
    "backward_transfer": "backward transfer (perplexity)",
}
_FORMATS = {"kept": ".0%", "bytes": "~s", "average": "~s", "ratio": ".2~f", "backward_transfer": "+.2~f"}
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "triangle-down", "star", "hexagon")


def front_figure(table: pd.DataFrame, x: str, y: str, front: Sequence[bool]) -> go.Figure:
    """Both axes are better when lower. Points on the front are ringed and joined by a line.

    table: of `sweeps.outcomes`. front: whether nothing beats the row. A point's custom data begins with its run.
    """
    shown = table.assign(front=list(front)).dropna(subset=[x, y])
    structures = list(dict.fromkeys(shown["structure"]))
    best = shown[shown["front"]].sort_values(x)
    traces: list[Any] = [
        go.Scatter(
            x=best[x], y=best[y], mode="lines", line={"color": DENSE_COLOUR, "width": 1.5, "shape": "hv"},
            hoverinfo="skip", name="front",
        )
    ]  # fmt: skip
    for method, part in shown.groupby("method", sort=False):
        symbols = [_SYMBOLS[structures.index(name) % len(_SYMBOLS)] for name in part["structure"]]
        rings = [2.5 if on else 0.0 for on in part["front"]]
        traces.append(
            go.Scatter(
                x=part[x],
                y=part[y],
                mode="markers",
                name=label(method),
                marker={
                    "color": method_colour(str(method)),
                    "size": 11,
                    "symbol": symbols,
                    "line": {"width": rings, "color": DENSE_COLOUR},
                },
                customdata=np.column_stack([part["run"], [_hover(row) for row in part.itertuples()]]),
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )
    reference = [level(0.0)] if y == "backward_transfer" else []
    return figure(
        *traces,
        height=400,
        shapes=reference,
        xaxis={"title": AXES[x], "showgrid": True, "fixedrange": True, **_axis(shown, x)},
        yaxis={"title": AXES[y], "fixedrange": True, **_axis(shown, y)},
    )


def multiples_figure(table: pd.DataFrame, metric: str, limits: tuple[float, float]) -> go.Figure:
    """One panel: each method's mean over seeds against the bytes kept, each run a dot.

    limits: of the metric, the same for every panel.
    """
    traces: list[Any] = []
    for method, part in table.dropna(subset=[metric]).groupby("method", sort=False):
        colour = method_colour(str(method))
        means = part.groupby("kept", as_index=False)[metric].mean().sort_values("kept")
        traces.append(
            go.Scatter(
                x=means["kept"], y=means[metric], mode="lines", hoverinfo="skip",
                line={"color": colour, "dash": method_dash(str(method))}, name=label(method),
            )
        )  # fmt: skip
        traces.append(
            go.Scatter(
                x=part["kept"], y=part[metric], mode="markers", marker={"color": colour, "size": 7},
                customdata=np.column_stack([part["run"], [_hover(row) for row in part.itertuples()]]),
                hovertemplate="%{customdata[1]}<extra></extra>", name=label(method),
            )
        )  # fmt: skip
    low, high = limits
    pad = 0.06 * (high - low or abs(high) or 1.0)
    scale: dict[str, Any] = {"range": [low - pad, high + pad]}
    if metric != "backward_transfer" and low > 0 and high > 8 * low:
        scale = {"type": "log", "range": [np.log10(low) - 0.05, np.log10(high) + 0.05]}
    return figure(
        *traces,
        height=260,
        shapes=[level(0.0)] if metric == "backward_transfer" else [],
        xaxis={"title": AXES["kept"], "tickformat": ".0%", "nticks": 6, "fixedrange": True},
        yaxis={
            "title": AXES[metric],
            "tickformat": _FORMATS[metric],
            "nticks": 6,
            "fixedrange": True,
            **scale,
        },
    )


def _axis(table: pd.DataFrame, name: str) -> dict[str, Any]:
    values = table[name].astype(float)
    found: dict[str, Any] = {"tickformat": _FORMATS[name], "nticks": 7}
    if name == "kept" and values.nunique() == 1:  # else the axis runs from nothing to more than everything
        found["range"] = [max(0.0, values.iloc[0] - 0.1), min(1.0, values.iloc[0] + 0.1)]
    if (
        name in ("average", "ratio", "bytes")
        and len(values)
        and values.min() > 0
        and values.max() > 8 * values.min()
    ):
        found["type"] = "log"
    return found


def _hover(row: Any) -> str:
    lines = [
        f"<b>{label(row.method)}</b>, {label(row.structure)}",
        f"{label(row.checkpoint)}, seed {row.seed}",
        label(row.order),
        f"{percent(row.kept)} of the bytes kept ({size(row.bytes)})",
        f"average perplexity {compact(row.average)} (dense {compact(row.dense_average)})",
    ]
    if row.backward_transfer == row.backward_transfer and row.backward_transfer is not None:
        lines.append(f"backward transfer {signed(row.backward_transfer)}")
    return "<br>".join(lines)
