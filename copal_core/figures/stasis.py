"""Changes of masks between steps: stasis, the flow between kept and pruned, and overlap between methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.analysis import metrics
from copal_core.analysis.results import stasis_by_step
from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.figures.numbers import percent
from copal_core.figures.template import (
    KEPT_COLOUR,
    NEWLY_COLOUR,
    PRUNED_COLOUR,
    REVIVED_COLOUR,
    SEQUENTIAL_UNDER_TEXT,
    TEXT_ON_CELL,
    figure,
    label,
    level,
    method_colour,
    method_dash,
    percent_ticks,
)

_SHADES = ("#0072B2", "#56B4E9", "#009E73", "#6B8E23", "#D55E00", "#E69F00", "#CC79A7")
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star")


def step_table(layers: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Return method, step, stasis, expected (the sparsity) and mask_change, from the second step on."""
    parts = [stasis_by_step(layers, method).assign(method=method) for method in methods]
    parts = [part for part in parts if len(part)]
    columns = ["method", "step", "stasis", "expected", "mask_change"]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True).rename(columns={"sparsity": "expected"})[columns]


def step_figure(table: pd.DataFrame) -> go.Figure:
    """Draw stasis after each step by method, between the value of independent masks and its ceiling."""
    lines = []
    for method in dict.fromkeys(table["method"]):
        chosen = table[table["method"] == method]
        lines.append(
            go.Scatter(
                x=chosen["step"],
                y=chosen["stasis"],
                mode="lines+markers",
                name=label(method),
                line={"color": method_colour(method), "dash": method_dash(method)},
                customdata=[percent(share) for share in chosen["stasis"]],
                hovertemplate=f"{label(method)}<br>step %{{x}}: %{{customdata}} stay pruned<extra></extra>",
            )
        )
    steps = sorted(set(table["step"]))
    ends = [min(steps) - 0.4, max(steps) + 0.4] if steps else None
    return figure(
        *lines,
        height=300,
        xaxis={"title": "step", "tickvals": steps, "range": ends, "fixedrange": True},
        **_between_references(table),
    )


def layer_table(layers: pd.DataFrame, method: str, step: int) -> pd.DataFrame:
    """Return block, projection, stasis and expected for one method and step (from the second on)."""
    chosen = layers[(layers["method"] == method) & (layers["step"] == step)].dropna(subset=["stay_pruned"])
    pruned, stayed = chosen["pruned"].to_numpy(float), chosen["stay_pruned"].to_numpy(float)
    stasis = [metrics.stasis(stay, total) for stay, total in zip(stayed, pruned, strict=True)]
    return pd.DataFrame(
        {
            "block": chosen["block"].to_numpy(),
            "projection": chosen["projection"].to_numpy(),
            "stasis": np.array(stasis, dtype=float),
            "expected": pruned / chosen["weights"].to_numpy(float),
        }
    )


def layer_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the stasis of every layer, one point per projection and block."""
    lines = []
    for projection, colour, symbol in zip(PROJECTIONS, _SHADES, _SYMBOLS, strict=True):
        chosen = table[table["projection"] == projection]
        lines.append(
            go.Scatter(
                x=chosen["block"],
                y=chosen["stasis"],
                mode="lines+markers",
                name=projection.removesuffix("_proj"),
                line={"color": colour, "width": 1},
                marker={"color": colour, "symbol": symbol, "size": 6},
                customdata=[percent(share) for share in chosen["stasis"]],
                hovertemplate=f"block %{{x}} · {projection}<br>%{{customdata}} stay pruned<extra></extra>",
            )
        )
    blocks = int(table["block"].max()) + 1 if len(table) else 1
    return figure(
        *lines,
        height=320,
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"title": "decoder block", "fixedrange": True, "dtick": max(1, -(-blocks // 12))},
        **_between_references(table),
    )


def flow_table(layers: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return step, stays_kept, newly_pruned, revived and stays_pruned, as shares of all weights, for each step."""
    chosen = layers[(layers["method"] == method) & (layers["step"] > 1)].dropna(subset=["stay_pruned"])
    columns = ["weights", "stay_pruned", "revived", "newly_pruned"]
    total = chosen.groupby("step", as_index=False)[columns].sum()
    weights = total["weights"].astype(float)
    shares = {name: total[name] / weights for name in columns[1:]}
    return pd.DataFrame(
        {
            "step": total["step"].astype(int),
            "stays_kept": 1 - shares["stay_pruned"] - shares["revived"] - shares["newly_pruned"],
            "newly_pruned": shares["newly_pruned"],
            "revived": shares["revived"],
            "stays_pruned": shares["stay_pruned"],
        }
    )


def flow_figure(table: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Draw the flow of weights between kept and pruned at each step.

    Args:
        table: as `flow_table` returns it.
        domains: of the run, in order.
    """
    steps = [int(step) for step in table["step"]]
    stages = [steps[0] - 1, *steps] if steps else []
    names = [f"{state} after {label(domains[stage - 1])}" for stage in stages for state in ("kept", "pruned")]
    source, target, value, colour, text = [], [], [], [], []
    held = [0.0] * len(names)  # share of all weights at each stage
    for index, row in enumerate(table.itertuples()):
        kept, pruned = 2 * index, 2 * index + 1
        for start, end, share, shade, change in (
            (kept, kept + 2, row.stays_kept, KEPT_COLOUR, "stay kept"),
            (kept, pruned + 2, row.newly_pruned, NEWLY_COLOUR, "newly pruned"),
            (pruned, kept + 2, row.revived, REVIVED_COLOUR, "revived"),
            (pruned, pruned + 2, row.stays_pruned, PRUNED_COLOUR, "stay pruned"),
        ):
            if share > 0:
                source.append(start)
                target.append(end)
                value.append(float(share))
                colour.append(_faded(shade))
                text.append(f"{percent(share)} of all weights {change}")
                held[start] += float(share)
                if end >= len(names) - 2:  # nothing flows out of the last stage
                    held[end] += float(share)
    sankey = go.Sankey(
        arrangement="fixed",
        node={
            "label": [""] * len(names),
            "customdata": [f"{name}: {percent(share)}" for name, share in zip(names, held, strict=True)],
            "color": [KEPT_COLOUR if index % 2 == 0 else PRUNED_COLOUR for index in range(len(names))],
            "x": [0.001 + 0.998 * (index // 2) / max(1, len(stages) - 1) for index in range(len(names))],
            "y": [0.25 if index % 2 == 0 else 0.8 for index in range(len(names))],
            "pad": 18,
            "thickness": 14,
            "line": {"width": 0},
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        link={
            "source": source, "target": target, "value": value, "color": colour, "customdata": text,
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    )  # fmt: skip
    notes = []
    for index, stage in enumerate(stages):
        anchor = "left" if index == 0 else "right" if index == len(stages) - 1 else "center"
        position = {"x": index / max(1, len(stages) - 1), "y": 1.0, "xref": "paper", "yref": "paper"}
        name = f"{stage}. {label(domains[stage - 1])}"
        notes.append({**position, "text": name, "showarrow": False, "xanchor": anchor, "yanchor": "bottom"})
    return figure(sankey, height=260, margin={"l": 4, "r": 4, "t": 26, "b": 8}, annotations=notes)


def overlap_table(
    overlaps: pd.DataFrame, methods: Sequence[str], step: int, projection: str = ""
) -> pd.DataFrame:
    """Return a square table of the Jaccard index between methods: weights pruned by both over those by either."""
    chosen = overlaps[overlaps["step"] == step]
    if projection:
        chosen = chosen[chosen["projection"] == projection]
    total = chosen.groupby(["method_a", "method_b"])[["both_pruned", "either_pruned"]].sum()
    table = pd.DataFrame(np.nan, index=pd.Index(list(methods), name="method"), columns=list(methods))
    for (first, second), both, either in zip(
        total.index, total["both_pruned"], total["either_pruned"], strict=True
    ):
        if first in table.index and second in table.index:
            value = metrics.jaccard(float(both), float(either))
            table.loc[first, second] = table.loc[second, first] = np.nan if value is None else value
    for method in methods:
        table.loc[method, method] = 1.0
    return table


def overlap_figure(table: pd.DataFrame) -> go.Figure:
    """Draw mask overlap between methods, from 0 (no pruned weight in common) to 1 (the same mask)."""
    names = [label(name) for name in table.columns]
    values = table.to_numpy(float)
    heatmap = go.Heatmap(
        z=values,
        x=names,
        y=names,
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL_UNDER_TEXT,
        xgap=2,
        ygap=2,
        text=[["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values],
        texttemplate="%{text}",
        textfont={"color": TEXT_ON_CELL},
        hovertemplate="%{y}<br>%{x}<br>Jaccard %{z:.3f}<extra></extra>",
        colorbar={"tickvals": [0, 0.25, 0.5, 0.75, 1]},
    )
    return figure(
        heatmap,
        height=150 + 44 * len(names),
        xaxis={"fixedrange": True, "tickangle": -40},
        yaxis={"fixedrange": True, "autorange": "reversed", "showgrid": False},
    )


def _between_references(table: pd.DataFrame) -> dict[str, Any]:
    """Return the layout of a stasis axis, with lines at its ceiling and at the value of independent masks."""
    marks = [(1.0, "ceiling: nothing moves", "bottom")]
    expected = float(table["expected"].mean()) if len(table) else float("nan")
    if np.isfinite(expected):
        marks.append((expected, f"independent masks: {percent(expected)}", "top"))
    notes = [
        {
            "text": text,
            "y": y,
            "yanchor": anchor,
            "x": 1,
            "xref": "x domain",
            "xanchor": "right",
            "showarrow": False,
        }
        for y, text, anchor in marks
    ]
    # from just below the lowest value or reference line, so that lines near the ceiling can be told apart
    low = max(0.0, min([y for y, _, _ in marks] + table["stasis"].dropna().tolist()) - 0.1)
    ticks = percent_ticks(low, 1)
    yaxis = {"title": "stasis", "range": [low, 1 + 0.12 * (1 - low)], "fixedrange": True, **ticks}
    return {"shapes": [level(y) for y, _, _ in marks], "annotations": notes, "yaxis": yaxis}


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.45)"
