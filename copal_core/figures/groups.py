"""Figures of a group: spread over seeds, sizes and orders; runs side by side; the Pareto front; small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from copal_core.figures.forgetting import outcome_bars
from copal_core.figures.numbers import compact, percent, signed, size
from copal_core.figures.template import (
    DENSE_COLOUR,
    figure,
    label,
    level,
    method_colour,
    method_dash,
    percent_ticks,
    upright,
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
_WRAP = 4  # domains of an order that fit a line of a hover


def strip_figure(table: pd.DataFrame, metric: str, what: str = "seed") -> go.Figure:
    """Each run a dot, each method a row; the bar spans the least to the most, the tick is the mean.

    table: of `groups.outcomes`. what: the column that tells a method's dots apart.
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
        xaxis={"title": AXES[metric], "showgrid": True, "fixedrange": True, **_axis(table, metric)},
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
    """Mean against the number of calibration windows, the band from the least to the most run.

    spread: of `groups.spread`, of runs that differ in nothing else.
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


def runs_named(count: int) -> Sequence[str]:
    """Letters for runs that are compared: A, B, C ..."""
    return [chr(ord("A") + index) for index in range(count)]


def front_figure(table: pd.DataFrame, x: str, y: str, front: Sequence[bool]) -> go.Figure:
    """Both axes are better when lower. Points on the front are ringed and joined by a line.

    table: of `groups.outcomes`, without the dense model. front: true where nothing beats the row. A point's custom
    data begins with its run.
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
        rings = {"width": [2.5 if on else 0.0 for on in part["front"]], "color": DENSE_COLOUR}
        # runs that lie on each other are both seen
        traces.append(_points(str(method), part, x, y, shapes_of(shown), size=11, opacity=0.8, line=rings))
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
    """Name the structure of each shape, in words: ● 30 % per row, ◆ 2:4."""
    return ", ".join(f"{_SYMBOLS[shape]} {name}" for name, shape in shapes_of(table).items())


def shapes_of(table: pd.DataFrame) -> dict[str, str]:
    """The shape of every structure, in the order of the table."""
    shapes = list(_SYMBOLS)
    names = dict.fromkeys(table["structure"])
    return {name: shapes[place % len(shapes)] for place, name in enumerate(names)}


def dense_level(table: pd.DataFrame, metric: str) -> float | None:
    """The level of the dense model; None where the runs have different texts, and so no one dense model."""
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
        traces.append(_points(str(method), part, "kept", metric, shapes, size=8))
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


def _points(
    method: str, part: pd.DataFrame, x: str, y: str, shapes: Mapping[str, str], **marker: Any
) -> go.Scatter:
    """A method's runs, each with the shape of its structure; custom data: the run, and its hover."""
    return go.Scatter(
        x=part[x], y=part[y], mode="markers", name=label(method),
        marker={"color": method_colour(method), "symbol": [shapes[name] for name in part["structure"]], **marker},
        customdata=np.column_stack([part["run"], [_hover(row) for row in part.itertuples()]]),
        hovertemplate="%{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _axis(table: pd.DataFrame, name: str) -> dict[str, Any]:
    """Logarithmic where the values span most of a decade; backward transfer may lie below zero, and never is."""
    values = table[name].astype(float)
    if name == "kept":
        return _kept_axis(values)
    axis: dict[str, Any] = {"tickformat": _FORMATS[name], "nticks": 7}
    if name != "backward_transfer" and len(values) and 0 < 8 * values.min() < values.max():
        return {"type": "log", "dtick": "D2" if values.max() < 100 * values.min() else 1}
    return axis


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
