"""Relearned scales of one layer's singular bases, before and after, with dropped and added bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.figures.numbers import percent
from copal_core.figures.template import DENSE_COLOUR, figure, method_colour

if TYPE_CHECKING:
    from copal_core.store.run_store import RunStore

_DROPPED = "#D55E00"


def read_bases(store: RunStore, method: str, step: int) -> list[dict[str, Any]]:
    """Read what a run kept of Basel's bases after `step`.

    Returns:
        One entry a layer: block, projection, before (k,), kept (indices), after (one a kept basis), added.
    """
    found = []
    for block in range(store.info["checkpoint"]["blocks"]):
        arrays = store.arrays("bases", method, step, block)
        for projection in (name for name in PROJECTIONS if f"{name}.before" in arrays):
            layer = {kind: arrays[f"{projection}.{kind}"] for kind in ("before", "kept", "after")}
            added = int(arrays[f"{projection}.added"].item())
            found.append({"block": block, "projection": projection, **layer, "added": added})
    return found


def bases_table(entry: Mapping[str, Any]) -> pd.DataFrame:
    """basis (1: the largest at first), before, after (NaN when dropped) and kept. entry: one layer of `read_bases`."""
    before = np.asarray(entry["before"], dtype=float)
    after = np.full(len(before), np.nan)
    after[np.asarray(entry["kept"], dtype=int)] = np.abs(np.asarray(entry["after"], dtype=float))
    return pd.DataFrame(
        {"basis": np.arange(1, len(before) + 1), "before": before, "after": after, "kept": np.isfinite(after)}
    )


def bases_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the scales before as a grey line, relearned ones as dots, dropped ones as crosses on the line."""
    kept, dropped = table[table["kept"]], table[~table["kept"]]
    hover = "basis %{x}<br>%{y:.4g}<extra></extra>"
    traces = [
        go.Scatter(
            x=table["basis"], y=table["before"], mode="lines", name="before", hovertemplate=hover,
            line={"color": DENSE_COLOUR, "width": 2},
        ),
        go.Scatter(
            x=kept["basis"], y=kept["after"], mode="markers", name="relearned", hovertemplate=hover,
            marker={"color": method_colour("basel:none"), "size": 5},
        ),
        go.Scatter(
            x=dropped["basis"], y=dropped["before"], mode="markers", name="dropped", hovertemplate=hover,
            marker={"color": _DROPPED, "size": 6, "symbol": "x"},
        ),
    ]  # fmt: skip
    values = table["before"].to_numpy(float)
    positive = values[values > 0]
    wide = len(positive) > 0 and float(positive.max()) > 20 * float(positive.min())
    scale = {"type": "log", "nticks": 6} if wide else {"rangemode": "tozero"}
    return figure(
        *traces,
        height=340,
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        xaxis={"title": "basis, largest first", "fixedrange": True},
        yaxis={"title": "scale", "fixedrange": True, **scale},
    )


def layers_table(bases: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per layer: block, projection, bases, kept, added and surprising.

    A kept basis is surprising if truncation by size to the same number of bases would have dropped it.
    """
    rows = []
    for layer in bases:
        kept = np.asarray(layer["kept"], dtype=int)
        surprising = int((kept >= len(kept)).sum())
        rows.append(
            (layer["block"], layer["projection"], len(layer["before"]), len(kept), layer["added"], surprising)
        )
    return pd.DataFrame(rows, columns=["block", "projection", "bases", "kept", "added", "surprising"])


def in_words(table: pd.DataFrame, added: int) -> str:
    """Summarise one layer's bases in two or three sentences."""
    kept = int(table["kept"].sum())
    surprising = int((table.loc[table["kept"], "basis"] > kept).sum())
    scales = table.loc[table["kept"]]
    change = (
        float((scales["after"] / scales["before"].replace(0, np.nan) - 1).abs().median()) if kept else 0.0
    )
    return (
        f"{kept} of {len(table)} bases were kept and {added} new ones added. {surprising} of the kept ones are smaller "
        f"than bases that plain svd would have kept. The typical scale changed by {percent(change)}."
    )
