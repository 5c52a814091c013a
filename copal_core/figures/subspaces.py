"""Details of one layer: parts kept and lost by each method, spectra, and angles between subspaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from copal_core.figures.layers import Range
from copal_core.figures.numbers import percent
from copal_core.figures.template import (
    DENSE_COLOUR,
    SEQUENTIAL,
    figure,
    label,
    log_ticks,
    method_colour,
    percent_ticks,
    upright,
)

Picture = NDArray[Any]
_FAINTEST = 30.0  # ratio of the top to the bottom of the pictures' colour scale


def picture_range(pictures: Sequence[Picture]) -> Range:
    """Return a common log10 colour range for all pictures that are compared, from 1/30 of the largest value."""
    top = max((float(picture.max()) for picture in pictures), default=0.0)
    high = float(np.log10(top)) if top > 0 else 0.0
    return high - float(np.log10(_FAINTEST)), high


def picture_figure(picture: Picture, shape: tuple[int, int], colours: Range) -> go.Figure:
    """Draw the root mean square of the weights in each tile of an (out, in) matrix, on a shared log colour scale."""
    return figure(
        _heatmap(picture, shape, colours, "x", scale=True),
        height=230,
        xaxis={"visible": False, "fixedrange": True, "range": [0, shape[1]]},
        yaxis={"visible": False, "fixedrange": True, "range": [shape[0], 0]},
    )


def pair_figure(kept: Picture, lost: Picture, shape: tuple[int, int], colours: Range) -> go.Figure:
    """Draw the kept part of a weight beside the lost part."""
    axis = {"visible": False, "fixedrange": True, "range": [0, shape[1]]}
    return figure(
        _heatmap(kept, shape, colours, "x"),
        _heatmap(lost, shape, colours, "x2"),
        height=230,
        xaxis={**axis, "domain": [0.0, 0.485]},
        xaxis2={**axis, "domain": [0.515, 1.0], "anchor": "y"},
        yaxis={"visible": False, "fixedrange": True, "range": [shape[0], 0]},
    )


def _heatmap(
    picture: Picture, shape: tuple[int, int], colours: Range, xaxis: str, scale: bool = False
) -> go.Heatmap:
    rows, columns = picture.shape
    return go.Heatmap(
        z=np.log10(np.maximum(picture, 10.0 ** colours[0])).astype(np.float32),
        x=(np.arange(columns) + 0.5) * shape[1] / columns,
        y=(np.arange(rows) + 0.5) * shape[0] / rows,
        xaxis=xaxis,
        hovertemplate="outputs near %{y:.0f} · inputs near %{x:.0f}<br>10<sup>%{z:.2f}</sup><extra></extra>",
        zmin=colours[0],
        zmax=colours[1],
        colorscale=SEQUENTIAL,
        showscale=scale,
        colorbar={"tickmode": "array", **log_ticks(*colours)},
    )


def picture_table(picture: Picture) -> pd.DataFrame:
    """Return a picture as a table with one row per pooled output and one column per pooled input."""
    return pd.DataFrame(picture, columns=[f"in {index}" for index in range(picture.shape[1])])


def pair_table(kept: Picture, lost: Picture) -> pd.DataFrame:
    """Return the `picture_table` of both parts, one below the other."""
    return pd.concat(
        [picture_table(part).assign(part=name) for name, part in (("kept", kept), ("lost", lost))]
    )


def spectrum_table(spectra: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """Return of, index and value: singular values relative to the largest.

    Args:
        spectra: 'weight' -> values of W itself, domain -> values of W on the domain's inputs.
    """
    parts = [
        pd.DataFrame({"of": name, "index": np.arange(1, len(values) + 1), "value": values})
        for name, values in spectra.items()
    ]
    return pd.concat(parts, ignore_index=True)


def spectrum_figure(table: pd.DataFrame, rank: int) -> go.Figure:
    """Draw the decay of singular values: of W alone in grey, and of W on each domain's inputs; the rank is marked."""
    dashes = ("solid", "dash", "dot", "dashdot")
    shades = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
    domains = [name for name in table["of"].unique() if name != "weight"]
    lines = []
    for name in table["of"].unique():
        part = table[table["of"] == name]
        number = domains.index(name) if name in domains else 0
        style = {"color": DENSE_COLOUR, "width": 3.0} if name == "weight" else {
            "color": shades[number % len(shades)], "dash": dashes[number // len(shades) % len(dashes)],
        }  # fmt: skip
        shown = "the weight alone" if name == "weight" else f"on {name}"
        lines.append(
            go.Scatter(
                x=part["index"],
                y=part["value"].clip(lower=1e-6),
                mode="lines",
                name=label(shown),
                line=style,
                hovertemplate=f"{label(shown)}<br>number %{{x}}: %{{y:.2e}} of the largest<extra></extra>",
            )
        )
    return figure(
        *lines,
        height=320,
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        shapes=[upright(rank)] if rank > 0 else [],
        xaxis={"title": "singular value, by size", "fixedrange": True},
        yaxis={
            "title": "relative to the largest",
            "type": "log",
            "dtick": 1,
            "exponentformat": "power",
            "fixedrange": True,
        },
    )


def inside_table(shares: Mapping[str, tuple[float, float, float]]) -> pd.DataFrame:
    """Return what and share: the share of the squared norm within the low-rank directions.

    Args:
        shares: mask -> shares of the masked weight, of the dense weight, and by chance.
    """
    rows = [(name, values[0]) for name, values in shares.items()]
    first = next(iter(shares.values()), None)
    if first is not None:
        rows += [("dense weight", first[1]), ("by chance", first[2])]
    return pd.DataFrame(rows, columns=["what", "share"])


def inside_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the share of each masked weight within the low-rank directions, as bars from 0 to 100 %."""
    ordered = table.iloc[::-1]
    colours = [DENSE_COLOUR if " " in what else method_colour(f"{what}:none") for what in ordered["what"]]
    bars = go.Bar(
        x=ordered["share"],
        y=[label(what) for what in ordered["what"]],
        orientation="h",
        marker={"color": colours},
        text=[percent(share) for share in ordered["share"]],
        textposition="auto",
        cliponaxis=False,
        hovertemplate="%{y}<br>%{text} inside<extra></extra>",
    )
    return figure(
        bars,
        height=70 + 34 * len(table),
        xaxis={"title": "share inside", "range": [0, 1.02], "fixedrange": True, **percent_ticks(0, 1)},
        yaxis={"fixedrange": True, "showgrid": False},
    )


def angle_table(cosines: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """Return mask, index and degrees: principal angles, smallest first.

    Args:
        cosines: mask -> cosines of the angles, largest first.
    """
    parts = [
        pd.DataFrame(
            {
                "mask": name,
                "index": np.arange(1, len(c) + 1),
                "degrees": np.degrees(np.arccos(np.clip(c, 0, 1))),
            }
        )
        for name, c in cosines.items()
    ]
    return (
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["mask", "index", "degrees"])
    )


def angle_figure(table: pd.DataFrame) -> go.Figure:
    """Draw principal angles: 0° is a shared direction, 90° one that the other subspace does not contain."""
    lines = [
        go.Scatter(
            x=part["index"],
            y=part["degrees"],
            mode="lines",
            name=label(name),
            line={"color": method_colour(f"{name}:none")},
            hovertemplate=f"{label(name)}<br>angle %{{x}}: %{{y:.0f}}°<extra></extra>",
        )
        for name, part in table.groupby("mask", sort=False)
    ]
    return figure(
        *lines,
        height=300,
        xaxis={"title": "direction", "fixedrange": True},
        yaxis={
            "title": "angle",
            "range": [-2, 92],
            "tickvals": [0, 30, 60, 90],
            "ticktext": ["0°", "30°", "60°", "90°"],
            "fixedrange": True,
        },
    )
