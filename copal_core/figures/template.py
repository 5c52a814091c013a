"""How every figure looks: one plotly template, one colour a criterion, one dash a strategy.

Backgrounds are transparent and fonts inherited, so that the same figure serves a light and a dark page.
Categories follow Okabe and Ito's palette, sequential scales cividis; both stay distinct for colour-blind readers.
"""

from __future__ import annotations

import html
import math
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

from copal_core.config import Method
from copal_core.errors import InvalidValueError
from copal_core.figures.numbers import power

NAME = "copal"
CRITERION_COLOURS = {"copal": "#D55E00", "wanda": "#0072B2", "sparsegpt": "#009E73", "magnitude": "#CC79A7"}
SPARE_COLOURS = ("#E69F00", "#56B4E9", "#8C6BB1", "#6B8E23")
STRATEGY_DASHES = {"accumulate": "solid", "restart": "dash", "sequential": "dot", "joint": "dashdot"}
DENSE_COLOUR = "#808080"
KEPT_COLOUR, PRUNED_COLOUR, REVIVED_COLOUR = "#0072B2", "#A0A0A0", "#E69F00"
NEWLY_COLOUR = "#CC79A7"
SEQUENTIAL = "Cividis"
DIVERGING = [[0.0, "#2166AC"], [0.25, "#92C5DE"], [0.5, "#F4F2EE"], [0.75, "#F4A582"], [1.0, "#B35806"]]
CLEAR = "rgba(0,0,0,0)"
GRID = "rgba(128,128,128,0.22)"
LINE = "rgba(128,128,128,0.45)"
_MODEBAR = {"bgcolor": CLEAR, "color": "rgba(128,128,128,0.7)", "activecolor": "rgba(128,128,128,1)"}


def _template() -> go.layout.Template:
    axis = {"gridcolor": GRID, "linecolor": LINE, "zerolinecolor": LINE, "ticks": "", "automargin": True}
    bar = {"thickness": 12, "outlinewidth": 0, "ticks": "", "title": {"side": "right"}, "xpad": 8, "len": 1.0}
    return go.layout.Template(
        layout={
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "colorway": [*CRITERION_COLOURS.values(), *SPARE_COLOURS],
            "margin": {"l": 0, "r": 8, "t": 12, "b": 0},
            "xaxis": {**axis, "showgrid": False},
            "yaxis": axis,
            "hoverlabel": {"align": "left"},
            "legend": {"orientation": "h", "y": -0.25, "x": 0},
        },
        data={
            "heatmap": [{"colorscale": SEQUENTIAL, "colorbar": bar, "hoverongaps": False}],
            "scatter": [{"line": {"width": 2.2}, "marker": {"size": 7}}],
            "bar": [{"marker": {"line": {"width": 0}}}],
        },
    )


pio.templates[NAME] = _template()


def figure(*traces: Any, height: int = 320, **layout: Any) -> go.Figure:
    """An empty or filled figure in the house template; `layout` as plotly takes it."""
    made = go.Figure(data=list(traces))
    # explicit, not only in the template: a host page may lay its own template's background over ours
    made.update_layout(template=NAME, height=height, paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, dragmode=False)
    made.update_layout(margin={"l": 0, "r": 8, "t": 12, "b": 0}, showlegend=False, modebar=_MODEBAR)
    made.update_layout(**layout)
    return made


def label(text: object) -> str:
    """Text of a person, safe inside plotly, which reads some HTML."""
    return html.escape(str(text), quote=False)


def method_colour(method: str) -> str:
    """The criterion's colour, the same on every page; unknown criteria get a spare one by name."""
    if method == "dense":
        return DENSE_COLOUR
    name = _parts(method)[0]
    return CRITERION_COLOURS.get(name) or SPARE_COLOURS[sum(name.encode()) % len(SPARE_COLOURS)]


def method_dash(method: str) -> str:
    """The strategy's dash, the same on every page."""
    return "longdash" if method == "dense" else STRATEGY_DASHES.get(_parts(method)[1], "longdashdot")


def log_ticks(low: float, high: float) -> dict[str, list[Any]]:
    """Colour-bar ticks at whole powers of ten for values given as log10, at most seven of them."""
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    every = max(1, math.ceil((last - first) / 6))
    values = [value for value in range(first, last + 1, every) if low - 0.02 <= value <= high + 0.02]
    if len(values) >= 2:
        return {"tickvals": values, "ticktext": [f"10{power(value)}" for value in values]}
    middle = [low, (low + high) / 2, high] if high > low else [low]
    return {"tickvals": middle, "ticktext": [f"{10.0**value:.2g}" for value in middle]}


def _parts(method: str) -> tuple[str, str]:
    try:
        parsed = Method.parse(method)
    except InvalidValueError:
        return method, ""
    return parsed.name, parsed.strategy
