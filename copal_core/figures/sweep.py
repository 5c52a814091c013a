"""A sweep: every run a point, the front of those that nothing beats, and small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.numbers import compact, percent, signed, size
from copal_core.figures.template import (
    DENSE_COLOUR,
    figure,
    label,
    level,
    method_colour,
    method_dash,
    percent_ticks,
)

AXES = {
    "kept": "bytes kept",
    "bytes": "stored bytes of the layers",
    "average": "average perplexity",
    "ratio": "times the dense model's perplexity",
    "backward_transfer": "backward transfer (perplexity)",
}
_FORMATS = {"bytes": "~s", "average": "~s", "ratio": ".2~f", "backward_transfer": ".2~f"}
_SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "triangle-up": "▲", "triangle-down": "▼", "star": "★",
    "hexagon": "⬢",
}  # fmt: skip


def front_figure(table: pd.DataFrame, x: str, y: str, front: Sequence[bool]) -> go.Figure:
    """Both axes are better when lower. Points on the front are ringed and joined by a line.

    table: of `sweeps.outcomes`. front: whether nothing beats the row. A point's custom data begins with its run.
    """
    shown = table.assign(front=list(front)).dropna(subset=[x, y])
    best = shown[shown["front"]].sort_values(x)
    traces: list[Any] = [
        go.Scatter(
            x=best[x], y=best[y], mode="lines", line={"color": DENSE_COLOUR, "width": 1.5, "shape": "hv"},
            hoverinfo="skip", name="front",
        )
    ]  # fmt: skip
    for method, part in shown.groupby("method", sort=False):
        shapes = shapes_of(shown)
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
                    "symbol": [shapes[name] for name in part["structure"]],
                    "opacity": 0.8,  # runs that lie on each other are both seen
                    "line": {"width": rings, "color": DENSE_COLOUR},
                },
                customdata=np.column_stack([part["run"], [_hover(row) for row in part.itertuples()]]),
                hovertemplate="%{customdata[1]}<extra></extra>",
            )
        )
    reference = dense_level(shown, y)
    if reference is not None and len(shown):
        ends = [float(shown[x].min()), float(shown[x].max())]
        traces.append(_dense_line(ends, reference))
    return figure(
        *traces,
        height=400,
        xaxis={"title": AXES[x], "showgrid": True, "fixedrange": True, **_axis(shown, x)},
        yaxis={"title": AXES[y], "fixedrange": True, **_axis(shown, y)},
    )


def shape_key(table: pd.DataFrame) -> str:
    """Which shape is which structure, in words: ● 30 % per row, ◆ 2:4."""
    return ", ".join(f"{_SYMBOLS[shape]} {name}" for name, shape in shapes_of(table).items())


def shapes_of(table: pd.DataFrame) -> dict[str, str]:
    """The shape of every structure, in the order of the table."""
    shapes = list(_SYMBOLS)
    names = dict.fromkeys(table["structure"])
    return {name: shapes[place % len(shapes)] for place, name in enumerate(names)}


def dense_level(table: pd.DataFrame, metric: str) -> float | None:
    """Where the dense model stands; None where the runs have different texts, and so no one dense model."""
    if metric == "average":
        found = table["dense_average"].dropna().unique()
        return float(found[0]) if len(found) == 1 else None
    return 1.0 if metric == "ratio" else 0.0


def _dense_line(ends: list[float], at: float) -> go.Scatter:
    return go.Scatter(
        x=ends, y=[at, at], mode="lines", line={"color": DENSE_COLOUR, "width": 1.5, "dash": "longdash"},
        name="dense model", hovertemplate=f"dense model: {compact(at)}<extra></extra>",
    )  # fmt: skip


def multiples_figure(
    table: pd.DataFrame, metric: str, limits: tuple[float, float], shapes: Mapping[str, str]
) -> go.Figure:
    """One panel: the mean over seeds of each method and kind of structure against the bytes kept, each run a dot.

    limits: of the metric, and shapes: of the structures, both the same for every panel.
    """
    traces: list[Any] = []
    reference = dense_level(table, metric)
    for method, part in table.dropna(subset=[metric]).groupby("method", sort=False):
        colour = method_colour(str(method))
        # one line for structures that differ in their numbers alone: 2:4 is not on the line of 30 % and 50 %
        for _, alike in part.groupby(part["structure"].str.replace(r"[\d.]+", "", regex=True), sort=False):
            means = alike.groupby("kept", as_index=False)[metric].mean().sort_values("kept")
            traces.append(
                go.Scatter(
                    x=means["kept"], y=means[metric], mode="lines", hoverinfo="skip",
                    line={"color": colour, "dash": method_dash(str(method))}, name=label(method),
                )
            )  # fmt: skip
        traces.append(
            go.Scatter(
                x=part["kept"], y=part[metric], mode="markers",
                marker={"color": colour, "size": 8, "symbol": [shapes[name] for name in part["structure"]]},
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
        shapes=[] if reference is None else [level(reference)],
        xaxis={"title": AXES["kept"], "fixedrange": True, **_axis(table, "kept")},
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
    if name == "kept":
        return _kept_axis(values)
    found: dict[str, Any] = {"tickformat": _FORMATS[name], "nticks": 7}
    if (
        name in ("average", "ratio", "bytes")
        and len(values)
        and values.min() > 0
        and values.max() > 8 * values.min()
    ):
        found["type"] = "log"
    return found


def _kept_axis(values: pd.Series) -> dict[str, Any]:
    """From nothing to everything at most, also where all runs keep the same share."""
    if not len(values):
        return {}
    low, high = float(values.min()), float(values.max())
    pad = 0.06 * (high - low) or 0.1
    reach = max(0.0, low - pad), min(1.0, high + pad)
    return {"range": reach, **percent_ticks(*reach, 5)}


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
