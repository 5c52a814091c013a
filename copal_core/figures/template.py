"""How every figure looks: one plotly template, one colour a method and one dash a strategy, as their classes say.

Backgrounds are transparent and fonts inherited, so that the same figure serves a light and a dark page.
Categories follow Okabe and Ito's palette, sequential scales cividis; both stay distinct for colour-blind readers.
"""

from __future__ import annotations

import colorsys
import html
import math
import re
import zlib
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

from copal_core.config import Method
from copal_core.errors import InvalidValueError
from copal_core.figures.numbers import compact, percent, power
from copal_core.methods.facts import facts_of
from copal_core.methods.strategies import STRATEGIES
from copal_core.methods.strategy import Strategy

NAME = "copal"
COLOURWAY = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#6B8E23")
_VARIANTS = {("basel", "metric=whitened"): "#7F4F24"}  # of one method with an option, drawn beside it
_STROKES = {  # plotly's dashes as SVG has them
    "solid": "", "dash": "9 5", "dot": "2 4", "longdash": "13 5", "dashdot": "9 4 2 4", "longdashdot": "13 4 2 4",
}  # fmt: skip
DENSE_COLOUR = "#808080"
KEPT_COLOUR, PRUNED_COLOUR, REVIVED_COLOUR = "#0072B2", "#A0A0A0", "#E69F00"
NEWLY_COLOUR = "#CC79A7"
SEQUENTIAL = "Cividis"
# the light half of cividis, on which dark numbers can be read; from far to near
SEQUENTIAL_UNDER_TEXT = ["#8A8779", "#A59C74", "#C3B369", "#E1CC55", "#FEE838"]
TEXT_ON_CELL = "#14171A"
# from as good as the dense model to forgotten: calm blue to strong orange, always darker, dark numbers readable on all
FORGETTING = ["#D3E3F0", "#ECDCC3", "#F2BC7E", "#E88E3C", "#D55E00"]
DIVERGING = [[0.0, "#2166AC"], [0.25, "#92C5DE"], [0.5, "#F4F2EE"], [0.75, "#F4A582"], [1.0, "#B35806"]]
CLEAR = "rgba(0,0,0,0)"
GRID = "rgba(128,128,128,0.22)"
LINE = "rgba(128,128,128,0.45)"
_MARGIN = {
    "l": 0,
    "r": 18,
    "t": 12,
    "b": 0,
}  # right: half of "100 %", which plotly leaves out where it is cut
_MODEBAR = {"bgcolor": CLEAR, "color": "rgba(128,128,128,0.7)", "activecolor": "rgba(128,128,128,1)"}


def _template() -> go.layout.Template:
    axis = {"gridcolor": GRID, "linecolor": LINE, "zerolinecolor": LINE, "ticks": "", "automargin": True}
    bar = {"thickness": 12, "outlinewidth": 0, "ticks": "", "title": {"side": "right"}, "xpad": 8, "len": 1.0}
    return go.layout.Template(
        layout={
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "colorway": list(COLOURWAY),
            "margin": _MARGIN,
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
    """A figure in the house template; `layout` as plotly takes it.

    Everything goes into one construction: plotly validates each later update on its own, which is slow.
    """
    content = {
        "template": NAME,
        "height": height,
        "dragmode": False,
        "showlegend": False,
        "modebar": _MODEBAR,
        # explicit, not only in the template: a host page may lay its own template over ours
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": _MARGIN,
    }
    return go.Figure(data=list(traces), layout={**content, **layout})


def level(y: float, width: float = 1.5) -> dict[str, Any]:
    """A dashed grey line across the figure: a reference that is not a method."""
    dash = {"color": DENSE_COLOUR, "width": width, "dash": "longdash"}
    return {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": dash}


def upright(x: float, colour: str = DENSE_COLOUR, dash: str = "longdash") -> dict[str, Any]:
    """A line from the bottom of the figure to its top."""
    line = {"color": colour, "width": 2, "dash": dash}
    return {"type": "line", "yref": "y domain", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line}


def band(x0: float, x1: float, colour: str = DENSE_COLOUR) -> dict[str, Any]:
    """A faint upright band behind the data."""
    place = {"yref": "y domain", "y0": 0, "y1": 1, "x0": x0, "x1": x1}
    return {
        "type": "rect",
        **place,
        "fillcolor": colour,
        "opacity": 0.18,
        "line": {"width": 0},
        "layer": "below",
    }


def label(text: object) -> str:
    """Text of a person, safe inside plotly, which reads some HTML."""
    return html.escape(str(text), quote=False)


def method_colour(method: str) -> str:
    """Return the method's colour, the same on every page; one that states none has a colour that its name decides."""
    if method == "dense":
        return DENSE_COLOUR
    name = _parts(method)[0]
    variant = (colour for (of, option), colour in _VARIANTS.items() if of == name and option in method)
    return next(variant, "") or facts_of(name).colour or _colour_of(name)


def _colour_of(name: str) -> str:
    """Return a colour of middling lightness whose hue, lightness and saturation follow from the name."""
    code = zlib.crc32(name.encode())
    hue, lightness, saturation = (
        code % 360 / 360,
        0.40 + code // 360 % 16 / 100,
        0.45 + code // 5760 % 16 / 100,
    )
    return "#" + "".join(
        f"{round(255 * part):02X}" for part in colorsys.hls_to_rgb(hue, lightness, saturation)
    )


def factorises(method: str) -> bool:
    """Tell whether a method leaves factors of low rank, and no masks."""
    return facts_of(re.split(r":|\[", method)[0]).artifact == "factors"


def method_dash(method: str) -> str:
    """Return the strategy's dash, the same on every page."""
    return "longdash" if method == "dense" else STRATEGIES.facts(_parts(method)[1], Strategy).dash  # type: ignore[type-abstract]


def swatch(method: str, dash: str = "") -> str:
    """Return a short line of the method's as SVG, for a key. dash: a name of plotly's; by default the strategy's."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="34" height="20" viewBox="0 0 34 20" aria-hidden="true">'
        f'<line x1="0" y1="10" x2="34" y2="10" stroke="{method_colour(method)}" stroke-width="3" '
        f'stroke-dasharray="{_STROKES[dash or method_dash(method)]}"/></svg>'
    )


def log_ticks(low: float, high: float) -> dict[str, list[Any]]:
    """Colour-bar ticks at whole powers of ten for values given as log10, at most seven of them."""
    first, last = math.floor(low), math.ceil(high)
    if high - low >= 2:
        every = max(1, math.ceil((last - first) / 6))
        values = [value for value in range(first, last + 1, every) if low <= value <= high]
        return {"tickvals": values, "ticktext": [f"10{power(value)}" for value in values]}
    steps = [(digit, exponent) for exponent in range(first, last + 1) for digit in (1, 2, 5)]
    marks = [digit * 10.0**exponent for digit, exponent in steps]
    marks = [mark for mark in marks if low <= math.log10(mark) <= high]
    if len(marks) < 2:
        marks = [10.0**low, 10.0 ** ((low + high) / 2), 10.0**high]
    return {"tickvals": [math.log10(mark) for mark in marks], "ticktext": [_round(mark) for mark in marks]}


def percent_ticks(low: float, high: float, steps: int = 6) -> dict[str, list[Any]]:
    """Round ticks, at most `steps` apart, for an axis of shares from `low` to `high`, written as in the text: 50 %."""
    wanted = max(high - low, 1e-6) / steps
    unit = 10.0 ** math.floor(math.log10(wanted))
    step = next(unit * digit for digit in (1, 2, 5, 10) if unit * digit >= wanted * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [step * number for number in range(first, last + 1)]
    return {"tickvals": values, "ticktext": [percent(value) for value in values]}


def logarithmic(*panels: Iterable[float]) -> bool:
    """Tell whether all panels that are compared get logarithmic axes: one of them spans more than 8 times."""
    positive = [[value for value in panel if 0 < value < math.inf] for panel in panels]
    return any(max(values) > 8 * min(values) for values in positive if values)


def _round(mark: float) -> str:
    """A tick's label without trailing zeros."""
    return f"{mark:.2g}" if 1e-3 <= mark < 100 else compact(mark)


def _parts(method: str) -> tuple[str, str]:
    try:
        parsed = Method.parse(method)
    except InvalidValueError:
        return method, ""
    return parsed.name, parsed.strategy
