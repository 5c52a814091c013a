"""Error of the finite-difference estimator as a function of its step."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from copal_core.figures.template import figure, method_colour


def estimator_table(epsilons: Sequence[float], errors: Sequence[float]) -> pd.DataFrame:
    """Return the columns epsilon and relative_error."""
    return pd.DataFrame({"epsilon": list(epsilons), "relative_error": list(errors)})


def estimator_figure(table: pd.DataFrame, chosen: float) -> go.Figure:
    """Draw the relative error over the step, both logarithmic; the chosen step is marked."""
    line = go.Scatter(
        x=table["epsilon"],
        y=table["relative_error"],
        mode="lines+markers",
        line={"color": method_colour("copal:accumulate"), "width": 2},
        hovertemplate="ε = %{x:.1e}: relative error %{y:.1e}<extra></extra>",
        showlegend=False,
    )
    drawn = figure(
        line,
        height=240,
        xaxis={"type": "log", "title": {"text": "relative step ε"}, "exponentformat": "power", "dtick": 1},
        yaxis={"type": "log", "title": {"text": "relative error"}, "exponentformat": "power", "dtick": 1},
    )
    drawn.add_vline(x=chosen, line={"dash": "dash", "width": 1, "color": "#888888"})
    return drawn
