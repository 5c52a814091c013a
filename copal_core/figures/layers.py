"""Block × projection maps: one value for each linear layer of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.errors import InvalidValueError
from copal_core.figures.numbers import compact, factor, percent
from copal_core.figures.template import DIVERGING, SEQUENTIAL, figure, log_ticks

Range = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """Quantity shown in a cell. If `logarithmic`, it is coloured by log10 and compared by ratio."""

    column: str
    label: str
    explanation: str
    logarithmic: bool = True


METRICS = {
    "memory": Metric(
        "score_mean",
        "Mean score, strategy's memory",
        "Mean importance score of the layer's weights, computed from the statistics the strategy remembers. "
        "These scores decided the mask.",
    ),
    "domain": Metric(
        "score_domain_mean",
        "Mean score, this domain alone",
        "Mean importance score of the layer's weights if only the domain of this step counted.",
    ),
    "kept": Metric(
        "kept", "Share kept", "Share of the layer's weights that the mask keeps.", logarithmic=False
    ),
    "threshold": Metric(
        "threshold_p50",
        "Pruning threshold",
        "The largest score that was removed: its median over the layer's comparison groups.",
    ),
}


def metric_named(name: str) -> Metric:
    """Return a metric by name. Raises InvalidValueError for an unknown name, with the list of metrics."""
    if name not in METRICS:
        raise InvalidValueError(f"metric '{name}' is not known; known: {', '.join(METRICS)}")
    return METRICS[name]


def layer_table(layers: pd.DataFrame, method: str, step: int, metric: str) -> pd.DataFrame:
    """Return block, projection and value for one method and step; empty before the step is computed."""
    chosen = layers[(layers["method"] == method) & (layers["step"] == step)]
    column = metric_named(metric).column
    value = 1 - chosen["pruned"] / chosen["weights"] if column == "kept" else chosen[column]
    return pd.DataFrame(
        {"block": chosen["block"], "projection": chosen["projection"], "value": value.astype(float)}
    ).reset_index(drop=True)


def difference_table(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return block, projection, first, second and value: log2(second / first), or second − first for shares."""
    joined = first.merge(second, on=["block", "projection"], suffixes=("_first", "_second"))
    a, b = joined["value_first"].to_numpy(float), joined["value_second"].to_numpy(float)
    if metric_named(metric).logarithmic:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where((a > 0) & (b > 0), np.log2(b / a), np.nan)
    else:
        value = b - a
    return pd.DataFrame(
        {
            "block": joined["block"],
            "projection": joined["projection"],
            "first": a,
            "second": b,
            "value": value,
        }
    )


def colour_range(metric: str, *tables: pd.DataFrame) -> Range:
    """Return a common colour range for all panels that are compared, in log10 for logarithmic metrics."""
    values = np.concatenate([table["value"].to_numpy(float) for table in tables]) if tables else np.array([])
    if metric_named(metric).logarithmic:
        values = np.log10(values[values > 0])
    values = values[np.isfinite(values)]
    if not len(values):
        return (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-6 else (low - 0.05, high + 0.05)


def layer_figure(
    table: pd.DataFrame, metric: str, colours: Range, blocks: int, marked: tuple[int, str] | None = None
) -> go.Figure:
    """Draw a heatmap of blocks (across) and projections (down).

    Args:
        table: as `layer_table` returns it.
        metric: name in METRICS.
        colours: as `colour_range` returns it.
        blocks: number of decoder blocks.
        marked: (block, projection) of a cell to outline.
    """
    chosen = metric_named(metric)
    shown = table.assign(text=[_value_text(value, chosen) for value in table["value"]])
    z = _grid(shown, "value", blocks)
    if chosen.logarithmic:
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(z > 0, np.log10(z), np.nan)
        ticks = log_ticks(*colours)
    else:
        low, high = colours
        values = [low, (low + high) / 2, high]
        ticks = {"tickvals": values, "ticktext": [percent(value) for value in values]}
    return _map(z, shown, blocks, colours, SEQUENTIAL, ticks, marked)


def difference_figure(
    table: pd.DataFrame,
    metric: str,
    blocks: int,
    marked: tuple[int, str] | None = None,
    most: float = math.inf,
) -> go.Figure:
    """Draw where the second map is higher (orange) or lower (blue) than the first; white is no change.

    Args:
        table: as `difference_table` returns it.
        metric: name in METRICS.
        blocks: number of decoder blocks.
        marked: (block, projection) of a cell to outline.
        most: upper limit of the colour scale, so that one extreme layer does not make all others look pale.
    """
    logarithmic = metric_named(metric).logarithmic
    values = table["value"].to_numpy(float)
    finite = np.abs(values[np.isfinite(values)])
    limit = min(most, float(finite.max())) if len(finite) and finite.max() > 1e-9 else 1.0
    shown = table.assign(text=[_change_text(value, logarithmic) for value in values])
    marks = [-limit, -limit / 2, 0.0, limit / 2, limit]
    ticks = {"tickvals": marks, "ticktext": [_change_text(value, logarithmic) for value in marks]}
    return _map(_grid(shown, "value", blocks), shown, blocks, (-limit, limit), DIVERGING, ticks, marked)


def cell_of(point: dict[str, object]) -> tuple[int, str] | None:
    """Return the (block, projection) of a selected point; None if it is not a cell of a map."""
    block, projection = point.get("x"), point.get("y")
    if isinstance(block, int | float) and math.isfinite(block) and projection in PROJECTIONS:
        return int(block), str(projection)
    return None


def _map(
    z: np.ndarray,
    shown: pd.DataFrame,
    blocks: int,
    colours: Range,
    scale: object,
    ticks: dict[str, Any],
    marked: tuple[int, str] | None,
) -> go.Figure:
    heatmap = go.Heatmap(
        z=z,  # (projections, blocks)
        x=list(range(blocks)),
        y=list(PROJECTIONS),
        zmin=colours[0],
        zmax=colours[1],
        colorscale=scale,
        xgap=1,
        ygap=1,
        hoverinfo="skip",
        colorbar={"tickmode": "array", **ticks},
    )
    # heatmap cells cannot be selected by clicking; an invisible marker on each can, and carries the hover text
    cells = go.Scatter(
        x=shown["block"],
        y=shown["projection"],
        mode="markers",
        marker={"symbol": "square", "size": 14, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        customdata=shown["text"],
        hovertemplate="block %{x} · %{y}<br>%{customdata}<extra></extra>",
    )
    return figure(
        heatmap,
        cells,
        height=300,
        hovermode="closest",
        hoverdistance=-1,
        clickmode="event+select",
        shapes=_outline(marked),
        xaxis={
            "title": "decoder block",
            "fixedrange": True,
            "range": [-0.5, blocks - 0.5],
            "dtick": max(1, -(-blocks // 12)),
        },
        yaxis={
            "fixedrange": True,
            "showgrid": False,
            "categoryorder": "array",
            "categoryarray": list(PROJECTIONS),
            "autorange": "reversed",
        },
    )


def _outline(marked: tuple[int, str] | None) -> list[dict[str, Any]]:
    """Return a double line around one cell, visible on dark and on light colours."""
    if marked is None:
        return []
    row = PROJECTIONS.index(marked[1])
    box = {"type": "rect", "x0": marked[0] - 0.5, "x1": marked[0] + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return [
        {**box, "line": {"color": colour, "width": width}}
        for colour, width in (("#FFFFFF", 4), ("#D55E00", 2))
    ]


def _grid(table: pd.DataFrame, column: str, blocks: int) -> np.ndarray:
    grid = np.full((len(PROJECTIONS), blocks), np.nan)
    for block, projection, value in zip(table["block"], table["projection"], table[column], strict=True):
        if projection in PROJECTIONS and 0 <= block < blocks:
            grid[PROJECTIONS.index(projection), int(block)] = value
    return grid


def _value_text(value: float, metric: Metric) -> str:
    return compact(value) if metric.logarithmic else f"{percent(value)} kept"


def _change_text(value: float, logarithmic: bool) -> str:
    if not math.isfinite(value):
        return "–"
    if logarithmic:
        return factor(2.0**value)
    return f"{100 * value:+.1f} points".replace("-", "−")
