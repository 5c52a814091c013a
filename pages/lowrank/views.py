"""Views of the Masks and low rank page: one layer under a budget slider."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from copal_core.checkpoints.layout import PROJECTIONS
from copal_core.figures import lowrank
from copal_core.figures.numbers import percent, size
from copal_core.methods import stored_size
from copal_core.statistics.prepared import Entry
from pages.lowrank import details, whole_model
from pages.shared import charts, layer_desk, links
from pages.shared.layer_desk import Layer, Setting
from pages.shared.text import plain
from pages.shared.words import GLOSSARY

ALL = "all"
LOWEST, DEFAULT = (
    10.0,
    56.25,
)  # percent of the bytes; half of the weights with a bitmask take 56.25, and so does 2:4
_KEY = "linked-kept"


def one_layer(setting: Setting, entry: Entry) -> None:
    """Show the choice of a layer, and the layer under the budget slider."""
    layer_desk.warm_up()
    with st.container(border=True):
        left, middle, right = st.columns(3)
        blocks = list(range(entry.blocks))
        with left:
            block = links.choose("Decoder block", "layer", blocks, blocks[len(blocks) // 2])
        with middle:
            projection = links.choose("Projection", "projection", list(PROJECTIONS), "down_proj")
        with right:
            fit = links.choose(
                "Methods see", "fit", [ALL, *entry.domains], ALL, show=_fit_name, help=GLOSSARY["fit"]
            )
    layer = layer_desk.layer(entry, "" if fit == ALL else fit, block, projection)
    _under_budget(setting, entry, layer, ("" if fit == ALL else fit, block, projection))


def budget_share() -> float:
    """Return the slider's value as a share of the bytes; it is stored in the URL."""
    try:
        kept = round(4 * float(links.read("kept") or DEFAULT)) / 4
    except (ValueError, OverflowError):
        kept = DEFAULT
    return min(100.0, max(LOWEST, kept)) / 100


def _fit_name(name: str) -> str:
    return "all domains" if name == ALL else name


@st.fragment
def _under_budget(setting: Setting, entry: Entry, layer: Layer, place: tuple[str, int, str]) -> None:
    """Show everything that depends on the slider, without a rerun of the rest of the page."""
    # set only once: a value set on every run would undo a move of the slider in the meantime
    st.session_state.setdefault(_KEY, round(100 * budget_share(), 2))
    kept = st.slider(
        "Bytes kept",
        LOWEST,
        100.0,
        step=0.25,
        format="%g %%",
        key=_KEY,
        help=GLOSSARY["bytes"],
        on_change=_follow_slider,
    )
    share, dense = kept / 100, stored_size.dense_bytes(*layer.shape)
    st.caption(
        f"Kept {percent(share, 2)}: {size(share * dense)} of the layer's {size(dense)} "
        f"({layer.shape[0]} × {layer.shape[1]} weights at 16 bits), bitmask or both factors included."
    )
    readings = layer.readings(share)
    words = {domain: lowrank.in_words(readings, domain, share) for domain in entry.domains}
    st.markdown("\n".join(f"- **{plain(domain)}**: {plain(text)}" for domain, text in words.items()))
    _curves(entry, layer, readings, share)
    _readings(entry, readings, share)
    details.show(entry, layer, place, share, readings)
    whole_model.preferences(setting, entry, share, place[1:])
    whole_model.offer(setting, share)
    whole_model.rerun_if_asked()


def _follow_slider() -> None:
    links.write("kept", f"{st.session_state[_KEY]:g}")


def _curves(entry: Entry, layer: Layer, readings: pd.DataFrame, share: float) -> None:
    charts.title("Share of the layer's output lost, by bytes kept", help=GLOSSARY["output error"])
    methods = [name for name in layer.table["method"].unique() if " " not in str(name)]
    charts.lowrank_key(methods)
    places = charts.places(len(entry.domains), in_row=3)
    for index, (place, domain) in enumerate(zip(places, entry.domains, strict=True)):
        with place:
            charts.title(plain(f"on {domain}"))
            figure = lowrank.curves_figure(layer.table, readings, domain, share)
            table = layer.table[layer.table["domain"] == domain]
            charts.show(
                figure, table, f"curves-{index + 1}", f"Output lost over bytes kept on domain {index + 1}"
            )
    rows = layer.curves.rows
    sampled = f"; masks measured on {rows} of {layer.shape[0]} rows" if layer.curves.sampled else ""
    st.caption(
        f"Protocol: {plain(entry.stamp)}{sampled}. No forward pass: errors follow from the inputs' statistics."
    )


def _readings(entry: Entry, readings: pd.DataFrame, share: float) -> None:
    """Show every method at the slider's budget as a table of text."""
    charts.title(f"Output lost at {percent(share, 2)} of the bytes")
    rows = []
    for method, part in readings.groupby("method", sort=False):
        first = part.iloc[0]
        becomes = lowrank.structure_words(first["kind"], first["amount"], first["share"])
        errors = {row.domain: lowrank.lost(row.error) for row in part.itertuples()}
        kept = f"{int(first['parameters']):,}"
        rows.append([str(method), becomes, kept, *(errors[name] for name in entry.domains)])
    columns = ["Method", "Becomes", "Weights kept", *entry.domains]
    charts.text_table(columns, rows, "Output lost at this budget, by method and domain")
    if (readings["kind"] == "point").any():
        points = readings[readings["kind"] == "point"].iloc[0]
        st.caption(
            f"2:4 keeps two of every four inputs; it always takes {percent(points['share'], 2)} of the bytes."
        )
