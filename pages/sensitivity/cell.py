"""Details of one layer: weight map, scores, rows and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from copal_core.errors import CopalError, RunError
from copal_core.figures import cells
from copal_core.figures.layers import Range
from copal_core.figures.numbers import compact, count, percent
from copal_core.store.run_store import RunStore
from pages.shared import charts, links, runs
from pages.shared.layer_choice import MapChoice
from pages.shared.text import empty_state, plain, show_error

_MAPS = ("score", "kept", "histogram", "edges", "row_kept")


@dataclass(frozen=True)
class Cell:
    """One layer of one method and step: its record and its pooled maps. `name` is used for files and widgets."""

    title: str
    name: str
    row: pd.Series
    tiles: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""
        return int(self.row["rows"]), int(self.row["columns"])

    @property
    def threshold(self) -> tuple[float, float, float] | None:
        """Quantiles (5, 50 and 95 %) of the pruning threshold over the comparison groups; None without one."""
        low, middle, high = (self.row[f"threshold_p{share}"] for share in ("05", "50", "95"))
        if pd.isna(low) or pd.isna(middle) or pd.isna(high):
            return None
        return float(low), float(middle), float(high)


def draw(store: RunStore, choices: list[MapChoice], block: int, projection: str) -> None:
    """Show one choice over the width of the page, or two side by side on shared scales."""
    try:
        loaded = [_cell(store, choice, block, projection) for choice in choices]
    except CopalError as error:
        show_error(error)
        return
    if None in loaded:
        empty_state(
            "Not computed yet", "This layer has no record in this step; choose an earlier domain or wait."
        )
        return
    kind = links.choose(
        "Weight map",
        "map",
        ["score", "kept"],
        show=lambda value: {"score": "Mean score", "kept": "Share kept"}[value],
        segments=True,
        help="The weight matrix, averaged over tiles of at most 64 × 64.",
    )
    shown = [cell for cell in loaded if cell is not None]
    colours = cells.score_range(*(cell.tiles for cell in shown))
    if len(shown) == 1:
        _across(shown[0], kind, colours)
        return
    for column, cell in zip(st.columns(2, gap="medium"), shown, strict=True):
        with column:
            _say(cell)
            _weight_map(cell, kind, colours)
            _scores(cell)
            _rows_and_heads(cell, shown)


def _across(cell: Cell, kind: str, colours: Range) -> None:
    _say(cell)
    left, right = st.columns(2, gap="medium")
    with left:
        _weight_map(cell, kind, colours)
    with right:
        _scores(cell)
    _rows_and_heads(cell, [cell])


def _cell(store: RunStore, choice: MapChoice, block: int, projection: str) -> Cell | None:
    layers = runs.table(store, "layers")
    chosen = layers[
        (layers["method"] == choice.method)
        & (layers["step"] == choice.step)
        & (layers["block"] == block)
        & (layers["projection"] == projection)
    ]
    if not len(chosen):
        return None
    tiles = runs.tiles(store, choice.method, choice.step, block, projection)
    if not set(_MAPS) <= set(tiles):
        raise RunError(
            f"the maps of block {block}, {projection} are incomplete; resume the run, or run it again"
        )
    return Cell(
        title=f"{choice.method}, after {runs.step_name(store, choice.step)}",
        name=f"{choice.method}-step{choice.step}-block{block}-{projection}".replace(":", "-"),
        row=chosen.iloc[0],
        tiles=tiles,
    )


def _say(cell: Cell) -> None:
    row = cell.row
    st.caption(
        f"{plain(cell.title)}: {cell.shape[0]} × {cell.shape[1]}, {count(row['weights'])} weights, "
        f"{percent(row['pruned'] / row['weights'])} removed, mean score {compact(row['score_mean'])}"
    )


def _weight_map(cell: Cell, kind: str, colours: Range) -> None:
    charts.title("Mean score of the weights" if kind == "score" else "Share of the weights kept")
    if kind == "score":
        figure = cells.score_map(cell.tiles, cell.shape, colours)
    else:
        figure = cells.kept_map(cell.tiles, cell.shape)
    table = cells.map_table(cell.tiles, kind)
    charts.show(figure, table, f"map-{kind}-{cell.name}", "Weight matrix, averaged over tiles", index=True)


def _scores(cell: Cell) -> None:
    threshold = cell.threshold
    marked = f", threshold {compact(threshold[1])}" if threshold else ""
    charts.title(
        f"Scores{marked}",
        help="Orange: the median threshold below which weights were removed; the band holds 90 % of the "
        "comparison groups' thresholds. Scores of zero are counted in the lowest bin.",
    )
    table = cells.histogram_table(cell.tiles)
    figure = cells.histogram_figure(table, threshold)
    charts.show(figure, table, f"scores-{cell.name}", "Histogram of scores, kept and pruned")


def _rows_and_heads(cell: Cell, compared: list[Cell]) -> None:
    """Show two less important figures in an expander that is closed at first."""
    has_heads = cells.heads_table(cell.tiles) is not None
    title = "Rows and heads" if has_heads else "Rows"
    folded = st.expander(title, key=f"rows-and-heads-{cell.name}", on_change="rerun")
    if folded.open:
        with folded:
            _rows(cell)
            _heads(cell, compared)


def _rows(cell: Cell) -> None:
    charts.title("Share kept, by output neuron", help="Within rows every neuron keeps the same share.")
    table = cells.rows_table(cell.tiles, cell.shape[0])
    charts.show(cells.rows_figure(table), table, f"rows-{cell.name}", "Share kept along output neurons")


def _heads(cell: Cell, compared: list[Cell]) -> None:
    table = cells.heads_table(cell.tiles)
    if table is not None:
        charts.title(
            "Mean score, by head", help="Under grouped-query attention keys and values have fewer heads."
        )
        tables = (cells.heads_table(other.tiles) for other in compared)
        beside = [heads for heads in tables if heads is not None]
        charts.show(
            cells.heads_figure(table, beside), table, f"heads-{cell.name}", "Mean score by attention head"
        )
