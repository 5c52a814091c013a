"""Maps of a run's layers on the Sensitivity page: one that is chosen, or two and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pandas as pd
import streamlit as st

from copal_core.figures import layers, panels
from copal_core.store.run_store import RunStore
from pages.shared import charts, layer_choice, links, runs
from pages.shared.layer_choice import MapChoice, choose_map
from pages.shared.text import empty_state, plain

T = TypeVar("T")


def draw(store: RunStore) -> list[MapChoice]:
    """Draw the form of one map or two, the maps on one colour scale, and their difference. Return the choices."""
    view = links.choose(
        "View",
        "view",
        ["one", "compare"],
        show=lambda value: {"one": "One map", "compare": "Compare two"}[value],
        segments=True,
        hidden_label=True,
    )
    records = runs.table(store, "layers")
    with st.container(border=True):
        choices = _choose_maps(store, records, view)
        metric = links.choose(
            "Colour",
            "metric",
            list(layers.METRICS),
            show=lambda name: layers.METRICS[name].label,
            help="  \n".join(f"**{one.label}**: {one.explanation}" for one in layers.METRICS.values()),
        )
    drawn = panels.layer_maps(
        records, choices, metric, store.domains, runs.blocks_of(store), layer_choice.linked_cell(store)
    )
    for one in drawn:
        if len(one.table):
            help = "Compared maps share one colour scale."
            charts.panel(one, brief=True, help=help, on_point=layer_choice.follow_click)
        else:
            charts.title(plain(one.title))
            empty_state(
                "Not computed yet",
                "This step of the run has no layers yet; choose an earlier domain or wait.",
            )
    if len(drawn) == 2:
        _draw_difference(store, drawn[0].table, drawn[1].table, metric)
    return choices


def _choose_maps(store: RunStore, records: pd.DataFrame, view: str) -> list[MapChoice]:
    """Return one map; in a comparison two that differ, the map of the single view after the one before it."""
    methods, computed = runs.mask_methods_of(store), sorted(int(step) for step in records["step"].unique())
    if view == "compare" and len(computed) < 2 and len(methods) < 2:
        empty_state("Nothing to compare yet", "A comparison needs a second step, or a second method.")
        view = "one"
    if view == "one":
        return [choose_map(store, MapChoice(methods[0], 1))]
    first_place, second_place = st.container(), st.container()
    with second_place:
        second = choose_map(store, MapChoice(methods[0], computed[-1] if computed else 1), which="second")
    before = _neighbour(computed, second.step)
    other = MapChoice(second.method, before)
    if before == second.step:  # methods are all that can differ
        other = MapChoice(_neighbour(methods, second.method), second.step)
    with first_place:
        first = choose_map(store, other, "other_", "first")
    if first == second:
        st.info("Both sides are the same; choose another method or domain for one of them.")
        return [second]
    return [first, second]


def _neighbour(options: Sequence[T], chosen: T) -> T:
    """Return the option before `chosen`, the next one where there is none before, and `chosen` where it is alone."""
    others = [option for option in options if option != chosen]
    before = options.index(chosen) - 1 if chosen in options else len(others) - 1
    return others[max(before, 0)] if others else chosen


def _draw_difference(store: RunStore, first: pd.DataFrame, second: pd.DataFrame, metric: str) -> None:
    """Draw where the second map is higher or lower."""
    logarithmic = layers.metric_named(metric).logarithmic
    charts.title(
        "Difference: second against first",
        help="Orange: higher in the second; blue: lower; pale: unchanged. "
        + (
            "A ratio on a logarithmic scale: ×2 means twice as high."
            if logarithmic
            else "In percentage points."
        ),
    )
    table = layers.difference_table(first, second, metric)
    if not len(table):
        empty_state("Nothing to compare", "The two maps share no layer; choose steps that are both computed.")
        return
    figure = layers.difference_figure(table, metric, runs.blocks_of(store), layer_choice.linked_cell(store))
    charts.show_selectable(
        figure, table, "difference", "Heatmap of the difference of two layer maps", layer_choice.follow_click
    )
