"""What the Sensitivity page is made of: a chosen map, two compared maps, one layer from close by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.figures import layers
from copal_core.store.run_store import RunStore
from pages.shared import charts, links, runs
from pages.shared.text import empty_state, plain

T = TypeVar("T")


@dataclass(frozen=True)
class MapChoice:
    """One method after one step."""

    method: str
    step: int


def choose_map(store: RunStore, default: MapChoice, prefix: str = "", which: str = "") -> MapChoice:
    """Two boxes, method and step. `prefix` separates the other map of a comparison in the URL."""
    left, right = st.columns(2)
    with left:
        method = links.choose(
            f"{which} method".strip().capitalize(),
            f"{prefix}method",
            runs.mask_methods_of(store),
            default.method,
            help="Criterion : strategy. Explained on the Prune page.",
        )
    with right:
        step = links.choose(
            f"{which}, after domain".removeprefix(", ").capitalize(),
            f"{prefix}step",
            list(range(1, len(store.domains) + 1)),
            default.step,
            show=lambda number: runs.step_name(store, number),
            help="Step t is the state after the first t domains.",
        )
    return MapChoice(method, step)


def draw_maps(store: RunStore) -> list[MapChoice]:
    """The form of one map or two, the maps on one colour scale, and their difference. Returns what was chosen."""
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
    tables = [layers.layer_table(records, choice.method, choice.step, metric) for choice in choices]
    colours = layers.colour_range(metric, *tables)
    for index, (choice, table) in enumerate(zip(choices, tables, strict=True)):
        charts.title(
            f"{layers.METRICS[metric].label}: {plain(choice.method)} after "
            f"{plain(runs.step_name(store, choice.step))}",
            help=layers.METRICS[metric].explanation + " Compared maps share one colour scale.",
        )
        _draw_map(store, metric, colours, table, f"layers-{index + 1}")
    if len(tables) == 2:
        _draw_difference(store, tables[0], tables[1], metric)
    return choices


def _choose_maps(store: RunStore, records: pd.DataFrame, view: str) -> list[MapChoice]:
    """One map; in a comparison two that differ: the map of the single view comes second, after what it came from."""
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
    """The option before `chosen`, the next one where there is none before, and `chosen` where it is alone."""
    others = [option for option in options if option != chosen]
    before = options.index(chosen) - 1 if chosen in options else len(others) - 1
    return others[max(before, 0)] if others else chosen


def choose_cell(store: RunStore) -> tuple[int, str]:
    """Block and projection: from the URL, which a click on a map also sets."""
    blocks = list(range(runs.blocks_of(store)))
    left, right = st.columns(2)
    with left:
        block = links.choose("Decoder block", "layer", blocks, blocks[len(blocks) // 2])
    with right:
        projection = links.choose("Projection", "projection", list(PROJECTIONS), "down_proj")
    return block, projection


def linked_cell(store: RunStore) -> tuple[int, str]:
    """The same choice, before its boxes are drawn."""
    blocks = runs.blocks_of(store)
    text, projection = links.read("layer") or "", links.read("projection")
    block = int(text) if text.isdigit() and int(text) < blocks else blocks // 2
    return block, projection if projection in PROJECTIONS else "down_proj"


def follow_click(point: dict[str, Any]) -> None:
    """A cell of a map was clicked: the link names it."""
    cell = layers.cell_of(point)
    if cell is not None:
        links.write("layer", cell[0])
        links.write("projection", cell[1])


def _draw_map(store: RunStore, metric: str, colours: layers.Range, table: pd.DataFrame, name: str) -> None:
    if not len(table):
        empty_state(
            "Not computed yet", "This step of the run has no layers yet; choose an earlier domain or wait."
        )
        return
    figure = layers.layer_figure(table, metric, colours, runs.blocks_of(store), linked_cell(store))
    alt = f"Heatmap of {layers.metric_named(metric).label.lower()} by decoder block and projection"
    charts.show_selectable(figure, table, name, alt, follow_click)


def _draw_difference(store: RunStore, first: pd.DataFrame, second: pd.DataFrame, metric: str) -> None:
    """Where the second map is higher or lower."""
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
    figure = layers.difference_figure(table, metric, runs.blocks_of(store), linked_cell(store))
    charts.show_selectable(
        figure, table, "difference", "Heatmap of the difference of two layer maps", follow_click
    )
