"""Every run of a group as a point: the Pareto front, and small multiples; a click opens the run."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from copal_core.analysis import groups as analysis
from copal_core.figures import groups as figures
from copal_core.figures.numbers import compact, percent, signed
from pages.shared import charts, links
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY

_PANELS, _SHOWN = 12, 12
_GO = "group-go"


def show(table: pd.DataFrame, view: str) -> None:
    """Every run a point, by its size or its forgetting, and the runs on the Pareto front as text."""
    y = _measure(table, ["average", "ratio"])
    x, words = "bytes" if table["checkpoint"].nunique() > 1 else "kept", GLOSSARY["bytes"]
    if view == "transfer":
        x, words = "backward_transfer", GLOSSARY["bwt"]
    if not table[x].notna().any():
        empty_state("Needs two domains", "With one domain nothing can be forgotten.")
        return
    front = analysis.pareto(table, x, y)
    charts.title("Every run a point: lower, and further left, is better", help=words)
    dense = figures.dense_level(table, y) is not None
    charts.method_key(list(dict.fromkeys(table["method"])), dense=dense)
    st.caption(
        f"{plain(figures.shape_key(table))}. Ringed and joined: the Pareto front, the runs that no other run beats in "
        "both. Click a point to open its run."
    )
    figure = figures.front_figure(table, x, y, front.tolist())
    alt = f"{figures.AXES[y]} against {figures.AXES[x]}, a point for each of {len(table)} runs"
    charts.show_selectable(figure, table, f"sweep-{view}", alt, _open)
    _best(table[front].sort_values(y))


def _measure(table: pd.DataFrame, metrics: list[str]) -> str:
    """Choose the number that is drawn. Seeds draw other windows; only a ratio to the dense model makes them alike."""
    alike = (table.groupby("checkpoint")["dense_average"].nunique() == 1).all()
    default = "average" if alike else "ratio"
    return links.choose(
        "Measure", "measure", metrics, default, show=lambda name: figures.AXES[name],
        help="Each seed draws texts of its own, some harder than others; over the dense model's perplexity on the same "
        "text, runs of different seeds compare.",
    )  # fmt: skip


def _best(front: pd.DataFrame) -> None:
    """The front as text, with a way to each run for those who cannot click."""
    charts.title("On the front")
    rows = [
        [
            row.method, row.structure, row.checkpoint, row.order, str(row.seed), percent(row.kept),
            compact(row.average), compact(row.dense_average), signed(row.backward_transfer),
        ]
        for row in front.head(_SHOWN).itertuples()
    ]  # fmt: skip
    columns = [
        "Method",
        "Structure",
        "Checkpoint",
        "Order",
        "Seed",
        "Bytes kept",
        "Average",
        "Dense",
        "Backward transfer",
    ]
    charts.text_table(columns, rows, "Runs on the Pareto front")
    if len(front) > _SHOWN:
        st.caption(f"{len(front) - _SHOWN} more are in the table below the figure.")
    names = {
        row.Index: f"{row.method}, {row.structure}, seed {row.seed}: {compact(row.average)}"
        for row in front.itertuples()
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("One of them", list(names), key="sweep-open", format_func=names.__getitem__)
        run = str(front.loc[chosen, "run"])
        st.button("Open", key="open-run", on_click=open_run, args=(run,), icon=":material/open_in_new:")


def multiples(table: pd.DataFrame) -> None:
    """A panel for each checkpoint, order of domains, and whatever else differs besides structure and seed."""
    metrics = [name for name in ("average", "ratio", "backward_transfer") if table[name].notna().any()]
    metric = _measure(table, metrics)
    panels = analysis.alike(table, "run_structure", "seed")
    levels = [figures.dense_level(part, metric) for _, part in panels]
    dense = metric != "backward_transfer" and any(level is not None for level in levels)
    charts.method_key(list(dict.fromkeys(table["method"])), dense=dense)
    st.caption(
        f"{plain(figures.shape_key(table))}. Points: runs. Lines: mean over seeds. All panels have one scale. Click a "
        "point to open its run."
    )
    values = [*table[metric].dropna().astype(float), *(level for level in levels if level is not None)]
    limits, shapes = (min(values), max(values)), figures.shapes_of(table)
    places: list[Any] = []
    while len(places) < min(len(panels), _PANELS):
        places += st.columns(min(3, len(panels)), gap="medium")
    for number, (place, (words, part)) in enumerate(zip(places, panels, strict=False), start=1):
        with place:
            charts.title(plain(words or f"{part['checkpoint'].iloc[0]}: {part['order'].iloc[0]}"))
            figure = figures.multiples_figure(part, metric, limits, shapes)
            alt = f"{figures.AXES[metric]} against bytes kept, panel {number} of {len(panels)}"
            charts.show_selectable(figure, part, f"panel-{number}", alt, _open)
    if len(panels) > _PANELS:
        st.caption(f"{len(panels) - _PANELS} more panels are left out; filter to see them.")


def _open(point: dict[str, Any]) -> None:
    data = point.get("customdata")
    if data:
        open_run(str(data[0]))


def open_run(run: str, page: str = "stasis") -> None:
    """Leave for a run's page once this page has run."""
    links.write("run", run)
    st.session_state[_GO] = page


def follow() -> None:
    """Go where `open_run` leads. Called at the end of the page."""
    page = st.session_state.pop(_GO, None)
    if page is not None:
        st.switch_page(f"pages/{page}/page.py")
