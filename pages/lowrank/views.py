"""What the Masks and low rank page is made of: one layer under a budget slider."""

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
)  # per cent of the bytes; half of the weights and their bitmask, and 2:4, take 56.25
_KEY = "linked-kept"


def one_layer(setting: Setting, entry: Entry) -> None:
    """Pick a layer, then move the budget."""
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
    found = layer_desk.layer(entry, "" if fit == ALL else fit, block, projection)
    _under_budget(setting, entry, found, ("" if fit == ALL else fit, block, projection))


def budget_share() -> float:
    """The slider's reading, which lives in the URL."""
    try:
        kept = round(4 * float(links.read("kept") or DEFAULT)) / 4
    except (ValueError, OverflowError):
        kept = DEFAULT
    return min(100.0, max(LOWEST, kept)) / 100


def _fit_name(name: str) -> str:
    return "all domains" if name == ALL else name


@st.fragment
def _under_budget(setting: Setting, entry: Entry, layer: Layer, place: tuple[str, int, str]) -> None:
    """All that answers the slider; the rest of the page stays as it is."""
    # set once: a value set on every run would take back what a person moves meanwhile
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
    charts.title("Share of the layer's output that is lost, by bytes kept", help=GLOSSARY["output error"])
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
        f"Protocol: {plain(entry.stamp)}{sampled}. No forward pass: errors follow from the inputs seen."
    )


def _readings(entry: Entry, readings: pd.DataFrame, share: float) -> None:
    """Every method at the slider's budget, readable as text."""
    charts.title(f"At {percent(share, 2)} of the bytes, this much is lost")
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
