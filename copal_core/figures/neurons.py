"""Redundant neurons: a block's map, a pair's activations, perplexity by share removed, spread between criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from copal_core.config import RunConfig
from copal_core.figures.numbers import compact, count, percent
from copal_core.figures.template import (
    SEQUENTIAL,
    figure,
    label,
    level,
    log_ticks,
    logarithmic,
    method_colour,
    method_dash,
    percent_ticks,
)
from copal_core.methods.facts import facts_of

RANDOM = "random-neurons"


def map_figure(nats: NDArray[Any], neurons: int) -> go.Figure:
    """Draw the mutual information of all pairs of neurons on a logarithmic colour scale.

    Args:
        nats: (side, side), pooled, with the neurons in the order of their groups.
        neurons: number of neurons.
    """
    side = len(nats)
    positive = nats[nats > 0]
    low, high = (float(np.quantile(positive, q)) for q in (0.02, 0.999)) if len(positive) else (1e-4, 1e-3)
    low, high = np.log10(low), np.log10(max(high, 1.05 * low))
    centres = (np.arange(side) + 0.5) * neurons / side
    heatmap = go.Heatmap(
        z=np.log10(np.maximum(nats, 1e-12)),
        x=centres,
        y=centres,
        customdata=nats,
        hovertemplate="neurons near %{x:.0f} and %{y:.0f} of the order<br>%{customdata:.2g} nats<extra></extra>",
        zmin=low,
        zmax=high,
        colorscale=SEQUENTIAL,
        colorbar={"tickmode": "array", "title": {"text": "nats", "side": "right"}, **log_ticks(low, high)},
    )
    axis = {"title": "neuron, in the order of the groups", "fixedrange": True, "nticks": 5, "showgrid": False}
    return figure(
        heatmap,
        height=440,
        xaxis=axis,
        yaxis={**axis, "range": [neurons, 0], "scaleanchor": "x", "constrain": "domain"},
    )


def pair_figure(pair: Mapping[str, Any]) -> go.Figure:
    """Draw the activations of two neurons, one point per token."""
    points = go.Scatter(
        x=pair["x"],
        y=pair["y"],
        mode="markers",
        marker={"size": 5, "opacity": 0.55, "color": method_colour("mutual-information:none")},
        hovertemplate="%{x:.3g}, %{y:.3g}<extra></extra>",
    )
    axis = {"fixedrange": True, "nticks": 5, "tickformat": ".2~g"}
    return figure(
        points,
        height=320,
        xaxis={"title": f"neuron {pair['one']}", **axis},
        yaxis={"title": f"neuron {pair['other']}", **axis},
    )


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return neuron, other, copula_nats and neighbours_nats of each pair, in the given order."""
    rows = [(p["one"], p["other"], p["information"], p["neighbours"]) for p in pairs]
    return pd.DataFrame(rows, columns=["neuron", "other", "copula_nats", "neighbours_nats"])


def share_table(
    config: RunConfig, perplexity: pd.DataFrame, domains: Sequence[str], step: int
) -> pd.DataFrame:
    """Return method (without its share), share, domain and perplexity after `step`, for neuron selectors."""
    rows = []
    for method in config.methods:
        if "share" not in method.options and facts_of(method.name).artifact != "neurons":
            continue
        share = float(method.options.get("share", 0.1))
        rest = {key: value for key, value in method.options.items() if key != "share"}
        name = str(method.model_copy(update={"options": rest}))
        measured = perplexity[(perplexity["method"] == str(method)) & (perplexity["step"] == step)]
        rows += [(name, share, row.domain, float(row.perplexity)) for row in measured.itertuples()]
    table = pd.DataFrame(rows, columns=["method", "share", "domain", "perplexity"])
    return table[table["domain"].isin(domains)].sort_values(["method", "share"]).reset_index(drop=True)


def share_figure(table: pd.DataFrame, dense: Mapping[str, float], domain: str) -> go.Figure:
    """Draw the perplexity of one domain over the share of neurons removed; lines begin at the dense model.

    Args:
        table: as `share_table` returns it.
        dense: domain -> perplexity of the dense model.
        domain: to draw.
    """
    panels = [[dense[name], *part["perplexity"]] for name, part in table.groupby("domain")]
    table = table[table["domain"] == domain]
    traces = []
    for method, part in table.groupby("method", sort=False):
        shares, values = [0.0, *part["share"]], [dense[domain], *part["perplexity"]]
        traces.append(
            go.Scatter(
                x=shares,
                y=values,
                mode="lines+markers",
                name=label(method),
                line={"color": method_colour(str(method)), "dash": method_dash(str(method))},
                customdata=[
                    f"{percent(share)} removed: {compact(value)}"
                    for share, value in zip(shares, values, strict=True)
                ],
                hovertemplate=f"{label(method)}<br>%{{customdata}}<extra></extra>",
            )
        )
    yaxis: dict[str, Any] = {"title": "perplexity", "tickformat": "~s", "nticks": 6, "fixedrange": True}
    if logarithmic(*panels):  # every domain has the same kind of axis
        yaxis |= {"type": "log"}
    ticks = percent_ticks(0, float(table["share"].max()) if len(table) else 1)
    xaxis = {"title": "neurons removed", "rangemode": "tozero", "fixedrange": True, **ticks}
    return figure(*traces, height=300, shapes=[level(dense[domain], 2)], xaxis=xaxis, yaxis=yaxis)


def standing(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return each finished method's average perplexity over the domains at one share, lowest first."""
    part = table[np.isclose(table["share"], share)]
    domains = part.groupby("method")["domain"].nunique()
    finished = domains[domains == part["domain"].nunique()].index
    ranked = part[part["method"].isin(finished)].groupby("method", as_index=False)["perplexity"].mean()
    return ranked.sort_values("perplexity").reset_index(drop=True)


def spread_of(ranked: pd.DataFrame) -> dict[str, Any] | None:
    """Compute the spread between criteria: worst over best average perplexity, minus one.

    Args:
        ranked: as `standing` returns it. Random neurons are reported, but do not count as a criterion.

    Returns:
        The spread, and the best and worst criterion; None with fewer than two criteria.
    """
    criteria = ranked[~ranked["method"].str.startswith(RANDOM)]
    if len(criteria) < 2:
        return None
    best, worst = criteria.iloc[0], criteria.iloc[-1]
    random = ranked[ranked["method"].str.startswith(RANDOM)]["perplexity"]
    return {
        "spread": float(worst["perplexity"] / best["perplexity"] - 1),
        "best": best["method"],
        "best_perplexity": float(best["perplexity"]),
        "worst": worst["method"],
        "worst_perplexity": float(worst["perplexity"]),
        "random_perplexity": float(random.iloc[0]) if len(random) else float("nan"),
    }


def finding(table: pd.DataFrame) -> str:
    """Compare the spreads of the smallest and the largest checkpoint with the published finding, in a sentence.

    Args:
        table: as for `spread_figure`. The checkpoints are compared at the largest share that both have.
    """
    ordered = table.sort_values("parameters")
    small, large = ordered.iloc[0]["checkpoint"], ordered.iloc[-1]["checkpoint"]
    if small == large:
        return "One checkpoint alone says nothing about the finding: run another size on the same domains and windows."
    spreads = {
        name: table[table["checkpoint"] == name].groupby("share")["spread"].max() for name in (small, large)
    }
    both = sorted(set(spreads[small].index) & set(spreads[large].index))
    if not both:
        return (
            "The smallest and the largest checkpoint have no share in common: run both with the same share."
        )
    share = both[-1]
    first, second = float(spreads[small][share]), float(spreads[large][share])
    verdict = "as published" if first > second else "the opposite of the published finding"
    return (
        f"With {percent(share)} removed the criteria are {apart(first)} on {small} and {apart(second)} on {large}: "
        f"{verdict}."
    )


def apart(spread: float) -> str:
    """Format a spread: '12 % apart', or 'a factor of 247 apart'."""
    return f"{percent(spread)} apart" if spread < 1 else f"a factor of {compact(1 + spread)} apart"


def spread_figure(table: pd.DataFrame) -> go.Figure:
    """Draw the spread between criteria over the checkpoint's parameters, one line per share removed.

    Args:
        table: columns checkpoint, parameters, share, spread, best and worst.
    """
    traces = []
    for share, part in table.sort_values("parameters").groupby("share"):
        hover = [
            f"{label(row.checkpoint)}, {count(row.parameters)} parameters<br>{percent(share)} removed<br>"
            f"the best and the worst criterion are {apart(row.spread)}<br>"
            f"best {label(row.best)}<br>worst {label(row.worst)}"
            for row in part.itertuples()
        ]
        traces.append(
            go.Scatter(
                x=part["parameters"],
                y=part["spread"],
                mode="lines+markers",
                name=f"{percent(share)} removed",
                marker={"size": 10},
                customdata=hover,
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    values = table["spread"].to_numpy(float)
    wide = bool((values > 0).all()) and values.max() > 20 * values.min()
    checkpoints = table.drop_duplicates("checkpoint").sort_values("parameters")
    names = [f"{label(row.checkpoint)}<br>{count(row.parameters)}" for row in checkpoints.itertuples()]
    low, high = (float(np.log10(checkpoints["parameters"].iloc[end])) for end in (0, -1))
    pad = max(0.3, 0.2 * (high - low))
    xaxis = {"title": "parameters of the checkpoint", "type": "log", "fixedrange": True, "showgrid": True}
    xaxis |= {
        "tickvals": checkpoints["parameters"].tolist(),
        "ticktext": names,
        "range": [low - pad, high + pad],
    }
    return figure(
        *traces,
        height=340,
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 0, "r": 24, "t": 40, "b": 0},
        xaxis=xaxis,
        yaxis={"title": "worst over best, minus one", "fixedrange": True, **_percents(values, wide)},
    )


def _percents(values: NDArray[np.float64], wide: bool) -> dict[str, Any]:
    """Return the axis of shares, with powers of ten as ticks if the values span decades."""
    if not wide:
        return {"rangemode": "tozero", **percent_ticks(0, 1.05 * float(values.max()))}
    powers = range(int(np.floor(np.log10(values.min()))), int(np.ceil(np.log10(values.max()))) + 1)
    ticks = [10.0**power for power in powers]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{100 * tick:,g} %" for tick in ticks]}
