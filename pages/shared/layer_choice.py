"""The layer that a page looks at, with its method and step: choices that live in the link."""

from __future__ import annotations

from typing import Any, NamedTuple

import streamlit as st

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.figures import layers
from copal_core.store.run_store import RunStore
from pages.shared import links, runs


class MapChoice(NamedTuple):
    """One method after one step."""

    method: str
    step: int


def choose_map(store: RunStore, default: MapChoice, prefix: str = "", which: str = "") -> MapChoice:
    """Draw two boxes, method and step. `prefix` separates the other map of a comparison in the link."""
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


def choose_cell(store: RunStore) -> tuple[int, str]:
    """Draw the boxes of block and projection, whose values are in the link, which a click on a map also sets."""
    blocks = list(range(runs.blocks_of(store)))
    left, right = st.columns(2)
    with left:
        block = links.choose("Decoder block", "layer", blocks, blocks[len(blocks) // 2])
    with right:
        projection = links.choose("Projection", "projection", list(PROJECTIONS), "down_proj")
    return block, projection


def linked_cell(store: RunStore) -> tuple[int, str]:
    """Return the same choice before its boxes are drawn."""
    blocks = runs.blocks_of(store)
    text, projection = links.read("layer") or "", links.read("projection")
    block = int(text) if text.isdigit() and int(text) < blocks else blocks // 2
    return block, projection if projection in PROJECTIONS else "down_proj"


def follow_click(point: dict[str, Any]) -> None:
    """Put the cell of a map that was clicked into the link."""
    cell = layers.cell_of(point)
    if cell is not None:
        links.write("layer", cell[0])
        links.write("projection", cell[1])
