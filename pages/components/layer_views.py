"""What the Sensitivity page is made of: a chosen map, two compared maps, one layer from close by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from copal_core.errors import CopalError
from copal_core.figures import cells, layers
from copal_core.figures.numbers import compact, count, percent
from copal_core.store import RunStore
from pages.components import charts, links, runs
from pages.components.text import empty_state, plain, show_error


@dataclass(frozen=True)
class MapChoice:
    """One method after one step."""

    method: str
    step: int


def choose_map(store: RunStore, prefix: str = "", default: int = 0) -> MapChoice:
    """Two boxes, method and step. `prefix` separates the second map of a comparison in the URL."""
    methods, steps = runs.methods_of(store), list(range(1, len(store.domains) + 1))
    left, right = st.columns(2)
    with left:
        method = links.choose(
            "Method", f"{prefix}method", methods, methods[0], help="Criterion : strategy. Explained on the Prune page."
        )
    with right:
        step = links.choose(
            "After domain",
            f"{prefix}step",
            steps,
            steps[default],
            show=lambda number: runs.step_name(store, number),
            help="Step t is the state after the first t domains.",
        )
    return MapChoice(method, step)


def choose_cell(store: RunStore, found: pd.DataFrame) -> tuple[int, str]:
    """Block and projection: from the URL, which a click on a map also sets."""
    blocks = list(range(runs.blocks_of(store)))
    present = [name for name in layers.PROJECTIONS if name in set(found["projection"])] or list(layers.PROJECTIONS)
    left, right = st.columns(2)
    with left:
        block = links.choose("Decoder block", "layer", blocks, blocks[len(blocks) // 2])
    with right:
        projection = links.choose("Projection", "projection", present, "down_proj")
    return block, projection


def linked_cell(store: RunStore) -> tuple[int, str]:
    """The same choice, before its boxes are drawn."""
    blocks = runs.blocks_of(store)
    text, projection = links.read("layer") or "", links.read("projection")
    block = int(text) if text.isdigit() and int(text) < blocks else blocks // 2
    return block, projection if projection in layers.PROJECTIONS else "down_proj"


def follow_click(point: dict[str, Any]) -> None:
    """A cell of a map was clicked: the link names it."""
    cell = layers.cell_of(point)
    if cell is not None:
        links.write("layer", cell[0])
        links.write("projection", cell[1])


def draw_map(store: RunStore, choice: MapChoice, metric: str, colours: layers.Range, table: pd.DataFrame, name: str) -> None:
    if not len(table):
        empty_state("Not computed yet", "This step of the run has no layers yet; choose an earlier domain or wait.")
        return
    figure = layers.layer_figure(table, metric, colours, runs.blocks_of(store), linked_cell(store))
    alt = f"Heatmap of {layers.metric_named(metric).label.lower()} by decoder block and projection"
    charts.show_selectable(figure, table, name, alt, follow_click)


def draw_difference(store: RunStore, first: pd.DataFrame, second: pd.DataFrame, metric: str) -> None:
    """Where the second map is higher or lower."""
    logarithmic = layers.metric_named(metric).logarithmic
    charts.title(
        "Difference: second against first",
        help="Orange: higher in the second; blue: lower; pale: unchanged. "
        + ("A ratio on a logarithmic scale: ×2 means twice as high." if logarithmic else "In percentage points."),
    )
    table = layers.difference_table(first, second, metric)
    if not len(table):
        empty_state("Nothing to compare", "The two maps share no layer; choose steps that are both computed.")
        return
    figure = layers.difference_figure(table, metric, runs.blocks_of(store), linked_cell(store))
    charts.show_selectable(figure, table, "difference", "Heatmap of the difference of two layer maps", follow_click)


def draw_cell(store: RunStore, choices: list[MapChoice], block: int, projection: str) -> None:
    """One layer from close by, for one choice or for two side by side on shared scales."""
    found = []
    for choice in choices:
        try:
            found.append(runs.tiles(store, choice.method, choice.step, block, projection))
        except CopalError as error:
            show_error(error)
            return
    kind = links.choose(
        "Weight map",
        "map",
        ["score", "kept"],
        show=lambda value: {"score": "Mean score", "kept": "Share kept"}[value],
        segments=True,
        help="The weight matrix, averaged over tiles of at most 64 × 64.",
    )
    colours = cells.score_range(*found)
    for column, choice, tiles in zip(st.columns(len(choices)), choices, found, strict=True):
        with column:
            _draw_one_cell(store, choice, tiles, (block, projection), kind, colours)


def _draw_one_cell(
    store: RunStore, choice: MapChoice, tiles: dict[str, Any], cell: tuple[int, str], kind: str, colours: layers.Range
) -> None:
    row = _record(store, choice, cell)
    if row is None:
        empty_state("Not computed yet", "This layer has no record in this step.")
        return
    name = f"{choice.method}-step{choice.step}-block{cell[0]}-{cell[1]}".replace(":", "-")
    shape = (int(row["rows"]), int(row["columns"]))
    st.caption(
        f"{plain(choice.method)}, after {plain(runs.step_name(store, choice.step))}: {shape[0]} × {shape[1]}, "
        f"{count(row['weights'])} weights, {percent(row['pruned'] / row['weights'])} removed, "
        f"mean score {compact(row['score_mean'])}"
    )
    charts.title("Weight map")
    figure = cells.score_map(tiles, shape, colours) if kind == "score" else cells.kept_map(tiles, shape)
    charts.show(figure, cells.map_table(tiles, kind), f"map-{kind}-{name}", f"Pooled weight map of {cell[1]}", index=True)
    charts.title(
        "Scores and the pruning threshold",
        help="The line is the median threshold; the band holds 90 % of the comparison groups' thresholds.",
    )
    threshold = _threshold(row)
    st.caption(f"Orange line: median threshold {compact(threshold[1])}." if threshold else "This step has no threshold.")
    histogram = cells.histogram_table(tiles)
    charts.show(cells.histogram_figure(histogram, threshold), histogram, f"scores-{name}", "Histogram of scores")
    rows = cells.rows_table(tiles, shape[0])
    charts.title("Output neurons")
    charts.show(cells.rows_figure(rows), rows, f"rows-{name}", "Share kept along output neurons")
    heads = cells.heads_table(tiles)
    if heads is not None:
        charts.title("Attention heads", help="Keys and values have fewer heads under grouped-query attention.")
        charts.show(cells.heads_figure(heads), heads, f"heads-{name}", "Mean score by attention head")


def _record(store: RunStore, choice: MapChoice, cell: tuple[int, str]) -> pd.Series | None:
    found = runs.table(store, "layers")
    chosen = found[
        (found["method"] == choice.method)
        & (found["step"] == choice.step)
        & (found["block"] == cell[0])
        & (found["projection"] == cell[1])
    ]
    return chosen.iloc[0] if len(chosen) else None


def _threshold(row: pd.Series) -> tuple[float, float, float] | None:
    values = tuple(row[f"threshold_p{share}"] for share in ("05", "50", "95"))
    return None if any(pd.isna(value) for value in values) else tuple(float(value) for value in values)  # type: ignore[return-value]
