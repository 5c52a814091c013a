"""Single weights: a tile of a layer weight by weight, and how far a weight is from going, criterion by criterion."""

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
_FEWEST, _MOST = 12, 48  # weights across and down of the close look
_FAR = 1e4  # margins beyond are drawn at the edge


def tile_of(row: int, column: int, shape: tuple[int, int], tiles: tuple[int, int]) -> tuple[range, range]:
    """The rows and columns of the tile that holds a weight; around it more of a small tile, and fewer of a large one.

    shape: (out, in) of the layer. tiles: how many down and across.
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
    map_figure: go.Figure, tiles: tuple[int, int], shape: tuple[int, int], looked_at: tuple[range, range]
) -> go.Figure:
    """A layer's map with an invisible marker on every tile, as heatmaps cannot be clicked to select.

    looked_at: rows and columns that are outlined.
    """
    heatmap = map_figure.data[0]
    values = (
        np.asarray(heatmap.z, dtype=float) if heatmap.customdata is None else np.asarray(heatmap.customdata)
    )
    hover = "outputs near %{y:.0f} · inputs near %{x:.0f}<br>score %{customdata:.3g}<extra></extra>"
    down, across = tiles
    y = np.repeat((np.arange(down) + 0.5) * shape[0] / down, across)
    x = np.tile((np.arange(across) + 0.5) * shape[1] / across, down)
    heatmap.update(
        hoverinfo="skip", hovertemplate=None
    )  # what is passed over by hovering cannot be clicked either
    map_figure.add_trace(_markers(x, y, 6, values.ravel(), hover))
    rows, columns = looked_at
    box = {"type": "rect", "x0": columns.start, "x1": columns.stop, "y0": rows.start, "y1": rows.stop}
    map_figure.update_layout(
        clickmode="event+select", hovermode="closest", hoverdistance=-1, shapes=_double(box)
    )
    return map_figure


def _markers(x: Any, y: Any, size: int, customdata: Any, hovertemplate: str) -> go.Scatter:
    """Invisible; they carry the hover text and the click."""
    invisible = {"marker": {"opacity": 0}}
    return go.Scatter(
        x=x, y=y, mode="markers", marker={"symbol": "square", "size": size, "opacity": 0},
        selected=invisible, unselected=invisible, customdata=customdata, hovertemplate=hovertemplate,
    )  # fmt: skip


def weight_of(point: dict[str, Any], shape: tuple[int, int]) -> tuple[int, int] | None:
    """(row, column) of a clicked point, or None when it lies outside the layer."""
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
    """A tile weight by weight: `values` (rows, columns) coloured by size, removed ones crossed, one outlined."""
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
        at = removed.ravel()
        cross = {"symbol": "x-thin", "size": 9, "line": {"width": 1.8, "color": "#D55E00"}}
        traces.append(go.Scatter(x=grid_x[at], y=grid_y[at], mode="markers", marker=cross, hoverinfo="skip"))
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
    """Whole numbers, at most about eight of them."""
    return max(1, -(-len(places) // 8))


def _outline(marked: tuple[int, int]) -> list[dict[str, Any]]:
    row, column = marked
    box = {"type": "rect", "x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return _double(box)


def _double(box: dict[str, Any]) -> list[dict[str, Any]]:
    """A line that is seen on dark and on light colours."""
    lines = (("#FFFFFF", 4), ("#D55E00", 2))
    return [{**box, "line": {"color": colour, "width": width}} for colour, width in lines]


def margin_figure(table: pd.DataFrame, domains: Sequence[str]) -> go.Figure:
    """Score over threshold by criterion (down) and domain (colour and shape); left of 1 the weight goes.

    table: criterion, domain, margin and text, one row each; a margin that is not finite is left out.
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
    reach = max(0.15, 1.15 * float(np.abs(np.log10(values)).max())) if len(values) else 1.0
    # a shape on a logarithmic axis is placed by its value's logarithm
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
    """A weight's place in words."""
    return f"score {compact(score)}, rank {rank:,} of {among:,}; the lowest {removed:,} go ({percent(removed / among)})"
