"""Views of the Stasis and forgetting page: outcome, perplexity matrices, moving masks and their overlap."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.config import RunConfig
from copal_core.figures import forgetting as forgetting_figures
from copal_core.figures import panels
from copal_core.figures import stasis as stasis_figures
from copal_core.figures.numbers import compact, percent, signed
from copal_core.methods.describe import own_amount, removed
from copal_core.store.run_store import RunStore
from pages.shared import charts, links, runs
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY


def forgetting(store: RunStore) -> None:
    """Draw the outcome, and the curve of each domain."""
    perplexity, methods, domains = runs.table(store, "perplexity"), runs.methods_of(store), store.domains
    if not len(perplexity):
        empty_state(
            "No perplexity yet",
            "The dense model is measured first; it appears here once the run has done so.",
        )
        return
    summary = forgetting_figures.summary_table(perplexity, methods, domains)
    dense = forgetting_figures.dense_average(perplexity, domains)
    if len(summary):
        _outcome(store, summary, dense)
    st.subheader("Perplexity of each domain", help=GLOSSARY["perplexity"])
    charts.row_of_panels(panels.curves(perplexity, methods, domains))
    runs.stamp(store)


def _outcome(store: RunStore, summary: pd.DataFrame, dense: float) -> None:
    best = summary.loc[summary["average"].idxmin()]
    st.markdown(_verdict(summary) + _unlike(store.config))
    with st.container(horizontal=True, gap="large"):
        st.metric(
            "Dense average",
            compact(dense),
            width="content",
            help="Mean perplexity of the unpruned model. Lower is better.",
        )
        st.metric(
            "Lowest average",
            compact(best["average"]),
            delta=str(best["method"]),
            delta_color="off",
            delta_arrow="off",
            width="content",
            help="The lowest mean perplexity over all domains after the last step.",
        )
        steady = summary.dropna(subset=["backward_transfer"])
        if len(steady):
            lowest = steady.loc[steady["backward_transfer"].astype(float).idxmin()]
            st.metric(
                "Lowest backward transfer",
                signed(lowest["backward_transfer"]),
                delta=str(lowest["method"]),
                delta_color="off",
                delta_arrow="off",
                width="content",
                help=GLOSSARY["bwt"],
            )
    left, right = charts.places(2)
    with left:
        charts.panel(panels.average(summary, dense), brief=True)
    with right:
        if len(store.domains) < 2:
            empty_state(
                "Needs two domains", "With one domain nothing can be forgotten. Add another on **Domains**."
            )
        else:
            charts.panel(panels.transfer(summary), brief=True, help=f"Forgetting: {GLOSSARY['forgetting']}")
    runs.stamp(store)


def _verdict(summary: pd.DataFrame) -> str:
    """Say where COPAL stands in this run, whichever way it falls."""
    ranked = summary.sort_values("average")["method"].tolist()
    copal = next(
        (method for method in ranked if method.startswith("copal") and method.endswith(":accumulate")), None
    )
    if copal is None or len(ranked) < 2:
        return f"Lowest average perplexity in this run: **{plain(ranked[0])}**."
    values = summary.set_index("method")["average"]
    if ranked[0] == copal:
        return f"In this run **{plain(copal)}** has the lowest average perplexity of {len(ranked)} methods."
    gap = values[copal] / values[ranked[0]] - 1
    return (
        f"In this run **{plain(ranked[0])}** has the lowest average perplexity; {plain(copal)} is number "
        f"{ranked.index(copal) + 1} of {len(ranked)}, {percent(gap)} above it."
    )


def _unlike(config: RunConfig) -> str:
    """Return a caution where the methods are not of one size; low rank has the bytes of the masks."""
    alike = len({own_amount(method) for method in config.methods}) == 1
    return "" if alike else f" The methods do not remove the same: {removed(config)}."


def matrices(store: RunStore) -> None:
    """Draw the perplexity matrix of each method, on one colour scale."""
    perplexity, methods = runs.table(store, "perplexity"), runs.methods_of(store)
    if not len(perplexity):
        empty_state(
            "No perplexity yet", "The dense model is measured first; it appears here once that is done."
        )
        return
    st.subheader("Perplexity matrix", help=GLOSSARY["perplexity"])
    charts.row_of_panels(panels.matrices(perplexity, methods, store.domains))
    runs.stamp(store)


def stasis(store: RunStore) -> None:
    """Draw stasis per step and per layer, and the flow between kept and pruned."""
    layers, methods = runs.table(store, "layers"), runs.mask_methods_of(store)
    runs.say_left_out(store)
    by_step = panels.stasis_by_step(layers, methods)
    if by_step is None:
        empty_state(
            "No second step yet",
            "Stasis compares two steps: it appears once a run with two domains has finished both.",
            domains="Put a second domain in order",
        )
        return
    charts.panel(by_step)
    table = by_step.table
    with st.container(border=True):
        left, right = st.columns(2)
        with left:
            method = links.choose("Method", "method", methods, methods[0])
        steps = sorted({int(step) for step in table[table["method"] == method]["step"]})
        with right:
            step = links.choose(
                "After domain",
                "step",
                steps or [2],
                (steps or [2])[-1],
                show=lambda number: runs.step_name(store, number),
            )
    charts.title("Stasis by layer")
    by_layer = stasis_figures.layer_table(layers, method, step)
    charts.show(stasis_figures.layer_figure(by_layer), by_layer, "stasis-layers", "Stasis of every layer")
    charts.title("Where weights go", help="Each band is a share of all prunable weights between two steps.")
    st.caption(
        "Blue stays kept, grey stays pruned, orange is revived (pruned before, kept now), purple is newly pruned. "
        "Hover for shares."
    )
    flow = stasis_figures.flow_table(layers, method)
    charts.show(
        stasis_figures.flow_figure(flow, store.domains),
        flow,
        "flow",
        "Flow of weights between kept and pruned",
    )


def overlap(store: RunStore) -> None:
    """Draw the mask overlap between methods."""
    overlaps, methods = runs.table(store, "overlaps"), runs.mask_methods_of(store)
    runs.say_left_out(store)
    if len(methods) < 2 or not len(overlaps):
        empty_state(
            "Nothing to compare yet",
            "Overlap needs a run with at least two methods that have finished a step.",
            prune="Choose two methods",
        )
        return
    steps = sorted({int(step) for step in overlaps["step"]})
    with st.container(border=True):
        left, right = st.columns(2)
        with left:
            step = links.choose(
                "After domain", "step", steps, steps[-1], show=lambda number: runs.step_name(store, number)
            )
        with right:
            options = ["all", *PROJECTIONS]
            projection = links.choose("Projection", "projection", options, "all")
    chosen = "" if projection == "all" else projection
    shared = panels.overlap(overlaps, methods, step, store.config.structure.removed, chosen)
    charts.panel(shared, help=GLOSSARY["jaccard"])
    if shared.table.isna().to_numpy().any():
        st.caption("Empty cells: a method that has not finished this step.")
