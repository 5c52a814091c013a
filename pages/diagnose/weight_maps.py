"""Where a weight lies: the layer in tiles, and the weights around it; both choose another when clicked."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from copal_core.analysis.diagnosis.evidence import Evidence, Place
from copal_core.analysis.diagnosis.kept import Result
from copal_core.errors import CopalError
from copal_core.figures import cells, weights
from copal_core.store.run_store import RunStore
from pages.shared import charts, links, runs
from pages.shared.text import empty_state

_TILES = (64, 64)


def draw(
    store: RunStore, place: Place, shape: tuple[int, int], marked: tuple[int, int], result: Result | None,
    evidence: Evidence | None,
) -> None:  # fmt: skip
    """The whole layer in tiles, and the tile around the weight; both choose a weight when clicked."""
    tiles = _tiles(store, place, result)
    grid = tiles["score"].shape if tiles is not None else tuple(map(min, shape, _TILES))

    def follow(point: dict[str, Any]) -> None:
        found = weights.weight_of(point, shape)
        if found is not None:
            links.write("row", found[0])
            links.write("column", found[1])

    looked_at = weights.tile_of(*marked, shape, (grid[0], grid[1]))
    left, right = st.columns(2, gap="medium")
    with left:
        if tiles is None or result is None:
            empty_state(
                "No map of this layer", "It has no scores in this step. Choose a weight by its numbers above."
            )
        else:
            charts.title(
                "The layer: mean score of its weights",
                help="Averaged over tiles. Click a tile to look into it.",
            )
            drawn = cells.score_map(tiles, shape, cells.score_range(tiles))
            charts.show_selectable(
                weights.clickable_map(drawn, grid, shape, looked_at), cells.map_table(tiles, "score"), "weight-map",
                "Mean score of the layer's weights by tile", follow,
            )  # fmt: skip
    with right:
        if evidence is not None:
            _zoom(evidence, looked_at, marked, result, follow)


def _zoom(
    evidence: Evidence,
    looked_at: tuple[range, range],
    marked: tuple[int, int],
    result: Result | None,
    follow: Any,
) -> None:
    rows, columns = looked_at
    rows = range(max(rows.start, evidence.rows.start), min(rows.stop, evidence.rows.stop))
    values = evidence.tile("weight", rows, columns)
    removed, note = None, ""
    if result in evidence.results:
        number = evidence.results.index(result)
        if evidence.has(f"removed.{number}"):
            removed, note = evidence.removed_tile(number, rows, columns), " Orange crosses: removed."
    charts.title(
        "The weights around it", help=f"Size of every weight, log scale.{note} Click one to choose it."
    )
    table = pd.DataFrame(
        values, index=[f"out {row}" for row in rows], columns=[f"in {one}" for one in columns]
    )
    drawn = weights.zoom_figure(values, removed, rows, columns, marked, "value")
    charts.show_selectable(drawn, table, "weight-zoom", "Single weights by size", follow)


def _tiles(store: RunStore, place: Place, result: Result | None) -> dict[str, Any] | None:
    if result is None:
        return None
    try:
        found = runs.tiles(store, result.method, result.step, place.block, place.projection)
    except CopalError:
        return None
    return found if "score" in found else None
