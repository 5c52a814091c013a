"""A figure with its title, its table and its download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from copal_core.figures.template import factorises, method_colour, method_dash
from pages.shared.text import plain

_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d"],
}
_IMAGES = "image-format"
_STROKES = {
    "solid": "",
    "dash": "9 5",
    "dot": "2 4",
    "longdash": "13 5",
    "dashdot": "9 4 2 4",
    "longdashdot": "13 4 2 4",
}


def title(text: str, help: str | None = None) -> None:
    """A figure's title. `text` is the product's own words; escape a person's before."""
    st.markdown(f"**{text}**", help=help)


def show(figure: go.Figure, table: pd.DataFrame, name: str, alt: str, index: bool = False) -> None:
    """Draw `figure`; beneath it, folded, `table` and its CSV. `name` is unique on the page and names the file."""
    st.plotly_chart(figure, key=f"figure-{name}", config=_config(name), alt=alt)
    table_below(table, name, index)


def show_selectable(
    figure: go.Figure, table: pd.DataFrame, name: str, alt: str, on_point: Callable[[dict[str, Any]], None]
) -> None:
    """As `show`; `on_point` is called with the point that was clicked, before the page runs again."""
    key = f"figure-{name}"

    def follow() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points:
            on_point(points[0])

    st.plotly_chart(figure, key=key, config=_config(name), alt=alt, on_select=follow, selection_mode="points")
    table_below(table, name)


def table_below(table: pd.DataFrame, name: str, index: bool = False) -> None:
    """The numbers of a figure, folded away, with their CSV; sent to the browser only when unfolded."""
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
    """A small table of words and numbers that is read as text, and scrolls by itself on a narrow screen."""
    content = pd.DataFrame(
        [[plain(cell) for cell in row] for row in rows], columns=[plain(name) for name in columns]
    )
    st.table(content, hide_index=True, alt=alt, width="content")


def method_key(methods: list[str], dense: bool = True) -> None:
    """Which colour and dash is which method: drawn once for all figures of a page."""
    with st.container(horizontal=True, gap="medium"):
        for method in [*methods, *(["dense"] if dense else [])]:
            name = "dense model" if method == "dense" else method
            with st.container(
                horizontal=True, width="content", gap="xsmall", vertical_alignment="center", wrap=False
            ):
                st.image(_swatch(method), width=34, alt=f"line of {name}")
                st.caption(plain(name), width="content")


def lowrank_key(methods: list[str]) -> None:
    """Which colour is which method where no strategy is at work: masks solid, low rank dashed."""
    with st.container(horizontal=True, gap="medium"):
        for method in methods:
            with st.container(
                horizontal=True, width="content", gap="xsmall", vertical_alignment="center", wrap=False
            ):
                dash = "dash" if factorises(method) else "solid"
                st.image(_swatch(f"{method}:none", dash), width=34, alt=f"line of {method}")
                st.caption(plain(method), width="content")


def _swatch(method: str, dash: str = "") -> str:
    """A short line as SVG; only colours and dashes of our own go into it."""
    dashes = _STROKES[dash or method_dash(method)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="34" height="20" viewBox="0 0 34 20">'
        f'<line x1="0" y1="10" x2="34" y2="10" stroke="{method_colour(method)}" stroke-width="3" '
        f'stroke-dasharray="{dashes}"/></svg>'
    )


def _config(name: str) -> dict[str, Any]:
    form = st.session_state.get(_IMAGES, "png")
    return {**_CONFIG, "toImageButtonOptions": {"filename": name, "scale": 2, "format": form}}


def _image_format(name: str) -> None:
    """What the camera above a figure saves; one choice for all figures of the session."""
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
