"""Figures on a page: panels, their titles, keys, tables and downloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from copal_core.figures.panels import Panel
from copal_core.figures.template import factorises, swatch
from pages.shared.text import plain

_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d"],
}
_IMAGES = "image-format"


def title(text: str, help: str | None = None) -> None:
    """Write a figure's title. `text` is the product's own words; escape a person's before."""
    st.markdown(f"**{text}**", help=help)


def places(count: int, in_row: int = 2) -> list[Any]:
    """Return places for `count` figures, `in_row` of them in a row; a narrow screen stacks them in order."""
    found: list[Any] = []
    while len(found) < count:
        found += st.columns(min(in_row, count), gap="medium")
    return found[:count]


def panel(
    drawn: Panel,
    *,
    help: str = "",
    brief: bool = False,
    on_point: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Draw a panel: title, note, key, figure, table and download.

    Args:
        drawn: the panel; names in its texts are escaped here.
        help: more words beside the title, the product's own.
        brief: the note stands beside the title too, where there is no room for it.
        on_point: see `show_selectable`.
    """
    title(plain(drawn.title), help=f"{plain(drawn.note) if brief else ''} {help}".strip() or None)
    if not brief:
        st.caption(plain(drawn.note))
        if drawn.methods:
            method_key(drawn.methods, dense=False)
    if on_point is None:
        show(drawn.figure, drawn.table, drawn.name, drawn.alt)
    else:
        show_selectable(drawn.figure, drawn.table, drawn.name, drawn.alt, on_point)


def row_of_panels(drawn: Sequence[Panel]) -> None:
    """Draw panels of one kind, two in a row; their note and key, which they have in common, once above them."""
    st.caption(plain(drawn[0].note))
    if drawn[0].methods:
        method_key(drawn[0].methods, dense=False)
    for place, one in zip(places(len(drawn)), drawn, strict=True):
        with place:
            title(plain(one.title))
            show(one.figure, one.table, one.name, one.alt)


def show(figure: go.Figure, table: pd.DataFrame, name: str, alt: str, index: bool = False) -> None:
    """Draw `figure`; beneath it, folded, `table` and its CSV. `name` is unique on the page and names the file."""
    st.plotly_chart(figure, key=f"figure-{name}", config=_config(name), alt=alt)
    table_below(table, name, index)


def show_selectable(
    figure: go.Figure, table: pd.DataFrame, name: str, alt: str, on_point: Callable[[dict[str, Any]], None]
) -> None:
    """Draw as `show` does; `on_point` is called with the point that was clicked, before the page runs again."""
    key = f"figure-{name}"

    def follow() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points:
            on_point(points[0])

    st.plotly_chart(figure, key=key, config=_config(name), alt=alt, on_select=follow, selection_mode="points")
    table_below(table, name)


def table_below(table: pd.DataFrame, name: str, index: bool = False) -> None:
    """Offer the numbers of a figure, folded away, with their CSV; sent to the browser only when unfolded."""
    folded = st.expander("Table and download", type="compact", key=f"table-{name}", on_change="rerun")
    if not folded.open:
        return
    with folded:
        height = min(280, 38 + 35 * max(1, len(table)))
        st.dataframe(table, hide_index=not index, key=f"data-{name}", height=height)
        st.download_button(
            "Download CSV",
            lambda: table.to_csv(index=index),
            file_name=f"{name}.csv",
            mime="text/csv",
            key=f"csv-{name}",
            on_click="ignore",
            icon=":material/download:",
        )
        _image_format(name)


def text_table(columns: list[str], rows: list[list[str]], alt: str) -> None:
    """Draw a small table of words and numbers that is read as text and scrolls by itself on a narrow screen."""
    content = pd.DataFrame(
        [[plain(cell) for cell in row] for row in rows], columns=[plain(name) for name in columns]
    )
    st.table(content, hide_index=True, alt=alt, width="content")


def method_key(methods: Sequence[str], dense: bool = True) -> None:
    """Draw which colour and dash is which method, once for all figures of a page."""
    _key(
        {"dense model" if name == "dense" else name: swatch(name) for name in [*methods, *["dense"] * dense]}
    )


def lowrank_key(methods: Sequence[str]) -> None:
    """Draw which colour is which method where no strategy is at work: masks solid, low rank dashed."""
    dashes = {name: "dash" if factorises(name) else "solid" for name in methods}
    _key({name: swatch(f"{name}:none", dash) for name, dash in dashes.items()})


def _key(lines: dict[str, str]) -> None:
    """Draw names, each beside its line as SVG."""
    with st.container(horizontal=True, gap="medium"):
        for name, line in lines.items():
            with st.container(
                horizontal=True, width="content", gap="xsmall", vertical_alignment="center", wrap=False
            ):
                st.image(line, width=34, alt=f"line of {name}")
                st.caption(plain(name), width="content")


def _config(name: str) -> dict[str, Any]:
    form = st.session_state.get(_IMAGES, "png")
    return {**_CONFIG, "toImageButtonOptions": {"filename": name, "scale": 2, "format": form}}


def _image_format(name: str) -> None:
    """Choose the format that the camera above a figure saves, for all figures of the session."""
    key = f"image-{name}"
    st.session_state[key] = st.session_state.get(_IMAGES, "png")

    def follow() -> None:
        st.session_state[_IMAGES] = st.session_state[key]

    st.segmented_control(
        "The camera above a figure saves",
        ["png", "svg"],
        key=key,
        format_func=str.upper,
        on_change=follow,
        required=True,
    )
