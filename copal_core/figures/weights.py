"""Single weights: a tile of a layer weight by weight, and a weight's margin to removal under each criterion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from copal_core.figures.numbers import compact, percent
from copal_core.figures.template import SEQUENTIAL, figure, label, log_ticks, upright

DOMAIN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DOMAIN_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_FEWEST, _MOST = 12, 48  # weights across and down in the enlarged tile
_FAR = 1e4  # margins beyond this factor are drawn at the edge


def tile_of(row: int, column: int, shape: tuple[int, int], tiles: tuple[int, int]) -> tuple[range, range]:
    """Return the rows and columns of the tile that contains a weight; 12 to 48 of each, around the weight.

    Args:
        row: output neuron of the weight.
        column: input feature of the weight.
        shape: (out, in) of the layer.
        tiles: number of tiles down and across.
    """
    return _span(row, shape[0], tiles[0]), _span(column, shape[1], tiles[1])


def _span(index: int, size: int, tiles: int) -> range:
    number = min(tiles - 1, index * tiles // size)
    first, stop = number * size // tiles, -(-(number + 1) * size // tiles)
    if stop - first > _MOST:
        first = min(max(first, index - _MOST // 2), stop - _MOST)
        stop = first + _MOST
    if stop - first < _FEWEST:
        first = max(0, min(index - _FEWEST // 2, size - _FEWEST))
        stop = min(size, first + _FEWEST)
    return range(first, stop)


def clickable_map(
    map_figure: go.Figure, tiles: tuple[int, int], shape: tuple[int, int], outlined: tuple[range, range]
) -> go.Figure:
    """Add an invisible marker on every tile of a layer's map, because heatmaps do not support click selection.

    Args:
        map_figure: changed in place.
        tiles: number of tiles down and across.
        shape: (out, in) of the layer.
        outlined: rows and columns to outline.
    """
    heatmap = map_figure.data[0]
    values = (
        np.asarray(heatmap.z, dtype=float) if heatmap.customdata is None else np.asarray(heatmap.customdata)
    )
    hover = "outputs near %{y:.0f} · inputs near %{x:.0f}<br>score %{customdata:.3g}<extra></extra>"
    down, across = tiles
    y = np.repeat((np.arange(down) + 0.5) * shape[0] / down, across)
    x = np.tile((np.arange(across) + 0.5) * shape[1] / across, down)
    # a trace that ignores hovering ignores clicks too, and leaves them to the markers
    heatmap.update(hoverinfo="skip", hovertemplate=None)
    map_figure.add_trace(_markers(x, y, 6, values.ravel(), hover))
    rows, columns = outlined
    box = {"type": "rect", "x0": columns.start, "x1": columns.stop, "y0": rows.start, "y1": rows.stop}
    map_figure.update_layout(
        clickmode="event+select", hovermode="closest", hoverdistance=-1, shapes=_double(box)
    )
    return map_figure


def _markers(x: Any, y: Any, size: int, customdata: Any, hovertemplate: str) -> go.Scatter:
    """Return invisible markers that carry the hover text and receive clicks."""
    invisible = {"marker": {"opacity": 0}}
    return go.Scatter(
        x=x, y=y, mode="markers", marker={"symbol": "square", "size": size, "opacity": 0},
        selected=invisible, unselected=invisible, customdata=customdata, hovertemplate=hovertemplate,
    )  # fmt: skip


def weight_of(point: dict[str, Any], shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return (row, column) of a clicked point; None if it lies outside the layer."""
    x, y = point.get("x"), point.get("y")
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        return None
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    row, column = int(y), int(x)
    return (row, column) if 0 <= row < shape[0] and 0 <= column < shape[1] else None


def zoom_figure(
    values: NDArray[Any],
    removed: NDArray[np.bool_] | None,
    rows: range,
    columns: range,
    marked: tuple[int, int],
    name: str,
) -> go.Figure:
    """Draw a tile weight by weight.

    Args:
        values: (rows, columns), coloured by magnitude.
        removed: (rows, columns), removed weights are crossed; None without a mask.
        rows: of the layer that are shown.
        columns: of the layer that are shown.
        marked: (row, column) of the weight to outline.
        name: of the values in hover texts.
    """
    sizes = np.abs(values.astype(float))
    with np.errstate(divide="ignore"):
        z = np.where(sizes > 0, np.log10(sizes), np.nan)
    finite = z[np.isfinite(z)]
    high = float(finite.max()) if len(finite) else 0.0
    low = max(high - 4, float(finite.min())) if len(finite) else -1.0
    low = low if high - low > 1e-6 else high - 1
    heatmap = go.Heatmap(
        z=z, x=list(columns), y=list(rows), zmin=low, zmax=high, colorscale=SEQUENTIAL, hoverinfo="skip",
        colorbar={"tickmode": "array", **log_ticks(low, high)}, xgap=1, ygap=1,
    )  # fmt: skip
    grid_y, grid_x = np.repeat(list(rows), len(columns)), np.tile(list(columns), len(rows))
    state = np.full(z.size, "") if removed is None else np.where(removed.ravel(), ", removed", ", kept")
    texts = [f"{name} {compact(float(v))}{s}" for v, s in zip(values.ravel(), state, strict=True)]
    hover = "output %{y} · input %{x}<br>%{customdata}<extra></extra>"
    traces: list[Any] = [heatmap]
    if removed is not None:
        gone = removed.ravel()
        cross = {"symbol": "x-thin", "size": 9, "line": {"width": 1.8, "color": "#D55E00"}}
        traces.append(
            go.Scatter(x=grid_x[gone], y=grid_y[gone], mode="markers", marker=cross, hoverinfo="skip")
        )
    traces.append(_markers(grid_x, grid_y, 12, texts, hover))
    return figure(
        *traces,
        height=380,
        hovermode="closest",
        hoverdistance=-1,
        clickmode="event+select",
        shapes=_outline(marked),
        xaxis={"title": "input feature", "fixedrange": True, "range": [columns[0] - 0.5, columns[-1] + 0.5],
            "dtick": _tick(columns),
        },
        yaxis={
            "title": "output neuron", "fixedrange": True, "showgrid": False,
            "range": [rows[-1] + 0.5, rows[0] - 0.5], "dtick": _tick(rows),
        },
    )  # fmt: skip


def _tick(places: range) -> int:
    """Return a tick distance that gives about eight ticks at most."""
    return max(1, -(-len(places) // 8))


def _outline(marked: tuple[int, int]) -> list[dict[str, Any]]:
    row, column = marked
    box = {"type": "rect", "x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return _double(box)


def _double(box: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a double line that is visible on dark and on light colours."""
    lines = (("#FFFFFF", 4), ("#D55E00", 2))
    return [{**box, "line": {"color": colour, "width": width}} for colour, width in lines]


def margin_figure(table: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Draw score over threshold by criterion (down) and domain (colour and shape); below 1 the weight is removed.

    Args:
        table: columns criterion, domain, margin and text; margins that are not finite are left out.
        domains: in the order of their colours.
    """
    traces = []
    for number, domain in enumerate(domains):
        part = table[(table["domain"] == domain) & np.isfinite(table["margin"].astype(float))]
        traces.append(
            go.Scatter(
                x=part["margin"].astype(float).clip(1 / _FAR, _FAR),
                y=part["criterion"],
                mode="markers",
                name=label(domain),
                marker={
                    "size": 12,
                    "color": DOMAIN_COLOURS[number % len(DOMAIN_COLOURS)],
                    "symbol": DOMAIN_SYMBOLS[number % len(DOMAIN_SYMBOLS)],
                },
                customdata=part["text"],
                hovertemplate="%{y}, " + label(domain) + "<br>%{customdata}<extra></extra>",
            )
        )
    values = table["margin"].astype(float)
    values = values[np.isfinite(values) & (values > 0)].clip(1 / _FAR, _FAR)
    # a shape on a logarithmic axis is positioned by the value, its range by the logarithm
    reach = max(0.15, 1.15 * float(np.abs(np.log10(values)).max())) if len(values) else 1.0
    return figure(
        *traces,
        height=120 + 44 * max(1, table["criterion"].nunique()),
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        shapes=[upright(1)],
        xaxis={
            "title": "score ÷ threshold (log scale)", "type": "log", "range": [-reach, reach], "fixedrange": True,
            "tickvals": _margins(reach), "ticktext": [f"×{value:g}" for value in _margins(reach)], "showgrid": True,
        },
        yaxis={"type": "category", "fixedrange": True, "autorange": "reversed", "showgrid": False},
    )  # fmt: skip


def _margins(reach: float) -> list[float]:
    if reach > 1:
        every = max(1, math.ceil(reach / 3))
        return [
            10.0**power for power in range(-math.floor(reach), math.floor(reach) + 1) if power % every == 0
        ]
    return [value for value in (0.2, 0.5, 0.7, 1, 1.4, 2, 5) if abs(math.log10(value)) <= reach]


def standing_text(score: float, rank: int, among: int, removed: int) -> str:
    """Describe a weight's rank in its comparison group."""
    share = percent(removed / among)
    return f"score {compact(score)}, rank {rank:,} of {among:,}; the lowest {removed:,} are removed ({share})"
