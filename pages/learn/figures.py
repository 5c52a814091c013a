"""Figures of the lesson: the plane of the toy layer's two inputs, its scores, and its losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from copal_core.figures.numbers import compact, percent
from copal_core.figures.template import DENSE_COLOUR, LINE, figure, label, percent_ticks

Array = NDArray[np.float64]
REACH = 3.6  # the plane shows -REACH to REACH on both axes
ARROW_COLOUR = "#D55E00"
TEXT_MARKS = {"A": ("#0072B2", "circle"), "B": ("#009E73", "diamond")}


def plane_table(texts: Mapping[str, Array], dense: Array, pruned: Array | None = None) -> pd.DataFrame:
    """Return what, number, input 1 and input 2 of every token and every neuron's arrows."""
    rows = [
        (f"token of text {name}", index + 1, *point)
        for name, points in texts.items()
        for index, point in enumerate(points)
    ]
    rows += [("neuron, dense", index + 1, *arrow) for index, arrow in enumerate(dense)]
    if pruned is not None:
        rows += [("neuron, compressed", index + 1, *arrow) for index, arrow in enumerate(pruned)]
    table = pd.DataFrame(rows, columns=["what", "number", "input 1", "input 2"])
    return table.round({"input 1": 3, "input 2": 3})


def plane_figure(
    texts: Mapping[str, Array],
    dense: Array,
    pruned: Array | None = None,
    *,
    faint: Array | None = None,
    line: float | None = None,
    silent: float | None = None,
    chosen: int | None = None,
) -> go.Figure:
    """Draw tokens as dots and neurons as arrows, in the plane of the two inputs.

    Args:
        texts: name -> (tokens, 2).
        dense: (neurons, 2).
        pruned: (neurons, 2), the same neurons after compression.
        faint: (tokens, 2), tokens outside the calibration set.
        line: direction in degrees of the common line of a rank-1 layer.
        silent: direction in degrees of the tokens for which the neuron's output is zero.
        chosen: index of the token of the first text that is drawn larger.
    """
    traces: list[Any] = []
    if faint is not None:
        traces.append(_dots(faint, "not in the calibration set", DENSE_COLOUR, "circle", 4, 0.3))
    for name, points in texts.items():
        colour, symbol = TEXT_MARKS.get(name, (DENSE_COLOUR, "circle"))
        few = len(points) <= 12
        traces.append(
            _dots(
                points, f"text {name}", colour, symbol, 12 if few else 6, 0.95 if few else 0.55, few, chosen
            )
        )
    if line is not None:
        traces.append(_through_origin(line, ARROW_COLOUR, "the common line"))
    if silent is not None:
        traces.append(_through_origin(silent, DENSE_COLOUR, "no output"))
    traces += [_arrow(arrow, index, DENSE_COLOUR, "dense", "dot") for index, arrow in enumerate(dense)]
    if pruned is not None:
        traces += [_arrow(a, index, ARROW_COLOUR, "compressed", "solid") for index, a in enumerate(pruned)]
    axis = {"range": [-REACH, REACH], "fixedrange": True, "zeroline": True, "dtick": 1, "showgrid": True}
    return figure(
        *traces,
        height=400,
        hovermode="closest",
        xaxis={**axis, "title": "input 1", "constrain": "domain"},
        yaxis={**axis, "title": "input 2", "scaleanchor": "x", "constrain": "domain"},
    )


def score_table(dense: Array, pruned: Array) -> pd.DataFrame:
    """Return neuron, input and the scores with the dense and with the pruned weights.

    Args:
        dense: (neurons, inputs) scores.
        pruned: (neurons, inputs) scores.
    """
    neurons, inputs = dense.shape
    return pd.DataFrame(
        {
            "neuron": np.repeat(np.arange(1, neurons + 1), inputs),
            "input": np.tile(np.arange(1, inputs + 1), neurons),
            "score of the dense weight": dense.ravel().round(4),
            "score of the pruned weight": pruned.ravel().round(4),
        }
    )


def score_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the scores on a new text, of the dense and of the pruned weights."""
    names = [f"n{row.neuron} · in {row.input}" for row in table.itertuples()]
    first, second = "score of the dense weight", "score of the pruned weight"
    pruned = table[second].to_numpy(float)
    bars = [
        go.Bar(
            x=names,
            y=table[first],
            name="if scored dense",
            marker={"color": "rgba(128,128,128,0.25)", "line": {"color": DENSE_COLOUR, "width": 1.5}},
            hovertemplate="%{x}<br>dense: %{y:.3g}<extra></extra>",
        ),
        go.Bar(
            x=names,
            y=pruned,
            name="as pruned",
            marker={"color": ARROW_COLOUR},
            text=["0" if value == 0 else "" for value in pruned],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x}<br>pruned: %{y:.3g}<extra></extra>",
        ),
    ]
    return figure(
        *bars,
        height=340,
        barmode="overlay",
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"fixedrange": True, "tickangle": -45},
        yaxis={"title": "score on text B", "fixedrange": True, "nticks": 5},
    )


def loss_table(losses: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Return strategy and the shares of output lost on text A and on text B after both texts."""
    return pd.DataFrame(
        [(name, *pair) for name, pair in losses.items()], columns=["strategy", "text A", "text B"]
    ).round(4)


def loss_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the final loss of each strategy on both texts."""
    bars = []
    for name in ("A", "B"):
        values = table[f"text {name}"].astype(float)
        bars.append(
            go.Bar(
                x=[label(strategy) for strategy in table["strategy"]],
                y=values,
                name=f"text {name}",
                marker={"color": TEXT_MARKS[name][0]},
                text=[percent(value, 0) for value in values],
                textposition="outside",
                cliponaxis=False,
                customdata=[percent(value) for value in values],
                hovertemplate="%{x}, text " + name + "<br>%{customdata} of the output lost<extra></extra>",
            )
        )
    top = float(table[["text A", "text B"]].to_numpy(float).max())
    return figure(
        *bars,
        height=360,
        barmode="group",
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"fixedrange": True},
        yaxis={
            "title": "output lost",
            "fixedrange": True,
            "range": [0, 1.15 * max(top, 0.1)],
            **percent_ticks(0, 1.15 * max(top, 0.1)),
        },
    )


def _dots(
    points: Array,
    name: str,
    colour: str,
    symbol: str,
    size: int,
    opacity: float,
    numbered: bool = False,
    chosen: int | None = None,
) -> go.Scatter:
    sizes = [size + 8 if index == chosen else size for index in range(len(points))]
    return go.Scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="markers+text" if numbered else "markers",
        name=name,
        text=[str(index + 1) for index in range(len(points))] if numbered else None,
        textposition="middle center",
        textfont={"color": "#FFFFFF", "size": 11},
        marker={"color": colour, "symbol": symbol, "size": sizes, "opacity": opacity},
        hovertemplate=f"{label(name)}<br>input 1: %{{x:.2f}}<br>input 2: %{{y:.2f}}<extra></extra>",
    )


def _arrow(end: Array, index: int, colour: str, kind: str, dash: str) -> go.Scatter:
    thick = kind != "dense"
    hover = f"neuron {index + 1}, {kind}<br>{compact(float(end[0]))}, {compact(float(end[1]))}<extra></extra>"
    return go.Scatter(
        x=[0, float(end[0])],
        y=[0, float(end[1])],
        mode="lines+markers+text",
        name=f"neuron {index + 1}, {kind}",
        text=["", "" if thick else f"n{index + 1}"],
        textposition="top center",
        line={"color": colour, "width": 3.2 if thick else 1.6, "dash": dash},
        marker={"symbol": "arrow", "angleref": "previous", "size": [0, 13 if thick else 9], "color": colour},
        hovertemplate=hover,
    )


def _through_origin(degrees: float, colour: str, name: str) -> go.Scatter:
    end = 2 * REACH * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    return go.Scatter(
        x=[-end[0], end[0]],
        y=[-end[1], end[1]],
        mode="lines",
        name=name,
        line={"color": colour if name != "no output" else LINE, "width": 1.5, "dash": "dash"},
        hovertemplate=f"{name}<extra></extra>",
    )
