"""Perplexity over stored size: every method at the bytes it keeps, with a line for the dense model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from copal_core.analysis.results import perplexity_matrix
from copal_core.config import Method, RunConfig
from copal_core.figures.numbers import compact, percent
from copal_core.figures.template import (
    factorises,
    figure,
    label,
    level,
    logarithmic,
    method_colour,
    method_dash,
    percent_ticks,
)
from copal_core.methods import stored_size

COLUMNS = ("method", "share", "domain", "perplexity", "name", "note")


def run_sizes(
    config: RunConfig, run: str, perplexity: pd.DataFrame, factors: pd.DataFrame, domains: Sequence[str]
) -> pd.DataFrame:
    """One row a method and domain of a run after its last step, for methods that are finished. COLUMNS.

    method: a `curve_of`. name: the run and the whole method.
    """
    rows = []
    for method in config.methods:
        last = perplexity_matrix(perplexity, str(method), list(domains))[-1]
        if not np.isfinite(last).all():
            continue
        layers = factors[(factors["method"] == str(method)) & (factors["step"] == len(domains))]
        share, curve = stored_share(config, layers), curve_of(method)
        rows += [
            (curve, share, name, float(value), f"{run} {method}", "")
            for name, value in zip(domains, last, strict=True)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def curve_of(method: Method) -> str:
    """The method without the options that say its size: all sizes of one curve."""
    options = {name: value for name, value in method.options.items() if name not in ("keep", "members")}
    return str(method.model_copy(update={"options": options}))


def stored_share(config: RunConfig, layers: pd.DataFrame) -> float:
    """Bytes over dense bytes: as stored for low rank, as its structure says for masks. layers: one method's factors."""
    if not len(layers):
        return stored_size.structure_share(config.structure)
    return float(
        layers["bytes"].sum() / (layers["rows"] * layers["columns"] * stored_size.VALUE_BITS / 8).sum()
    )


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """Return method, kept, one column per domain, average and name: a row per method and size, largest first."""
    if not len(table):
        return pd.DataFrame(columns=["method", "kept", "average", "name"])
    index = ["method", "share", "name"]
    by_domain = table.pivot_table(
        index=index, columns="domain", values="perplexity", sort=False, dropna=False
    )
    by_domain = by_domain.dropna(how="all")
    by_domain.columns.name = None
    by_domain.insert(by_domain.shape[1], "average", by_domain.mean(axis=1))
    by_domain = (
        by_domain.reset_index()
        .rename(columns={"share": "kept"})
        .sort_values(["kept", "average"], ascending=[False, True])
    )
    names = [*(name for name in by_domain.columns if name != "name"), "name"]
    return by_domain[names].reset_index(drop=True)


def size_figure(table: pd.DataFrame, dense: Mapping[str, float], domain: str = "") -> go.Figure:
    """Draw perplexity over the share of bytes kept; the dense model is the grey line.

    Args:
        table: COLUMNS, as `run_sizes` returns it.
        dense: domain -> perplexity of the dense model.
        domain: to draw; empty for the mean over all domains.
    """
    chosen = table[table["domain"] == domain] if domain else table
    points = chosen.groupby(["method", "share"], as_index=False, sort=False)["perplexity"].mean()
    line = float(dense[domain]) if domain else float(np.mean(list(dense.values()))) if dense else float("nan")
    traces = []
    for method, part in points.groupby("method", sort=False):
        part = part.sort_values("share")
        name = str(method)
        traces.append(
            go.Scatter(
                x=part["share"],
                y=part["perplexity"],
                mode="lines+markers",
                name=label(name),
                line={"color": method_colour(name), "dash": method_dash(name)},
                marker={"size": 9, "symbol": "square" if factorises(name) else "circle"},
                customdata=[
                    f"{percent(row.share)} of the bytes: {compact(row.perplexity)}"
                    for row in part.itertuples()
                ],
                hovertemplate=f"{label(name)}<br>%{{customdata}}<extra></extra>",
            )
        )
    span = _range(points)
    # every domain has the same kind of axis
    panels = (
        [[dense[name], *part["perplexity"]] for name, part in table.groupby("domain")]
        if domain
        else [[line, *points["perplexity"]]]
    )
    yaxis = {"title": "perplexity", "tickformat": "~s", "nticks": 6, "fixedrange": True}
    if logarithmic(*panels):
        yaxis |= {"type": "log", "nticks": 6}
    return figure(
        *traces,
        height=320,
        shapes=[level(line, 2)] if np.isfinite(line) else [],
        xaxis={"title": "bytes kept", "range": span, "fixedrange": True, **percent_ticks(*span)},
        yaxis=yaxis,
    )


def _range(points: pd.DataFrame) -> tuple[float, float]:
    low = float(points["share"].min()) if len(points) else 0.5
    return max(0.0, low - 0.06), 1.02
