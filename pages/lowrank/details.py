"""Details of one layer at the slider's budget: pictures, spectra, subspaces. Only the chosen view is computed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from copal_core.figures import lowrank, subspaces
from copal_core.figures.numbers import percent
from copal_core.methods import stored_size
from copal_core.statistics.prepared import Entry
from pages.shared import charts, layer_desk, links
from pages.shared.layer_desk import Layer
from pages.shared.text import empty_state, plain
from pages.shared.words import GLOSSARY

_SHOWN = "shown-pictures"
_FIRST = ("wanda", "whitened-svd")


def show(
    entry: Entry, layer: Layer, place: tuple[str, int, str], share: float, readings: pd.DataFrame
) -> None:
    """Show the choice of a view, and the chosen view."""
    views = {"pictures": "Pictures", "spectra": "Singular values", "subspaces": "Subspaces"}
    view = links.choose(
        "Details", "close", list(views), show=views.__getitem__, segments=True, hidden_label=True
    )
    if view == "spectra":
        _spectra(entry, layer, share)
    elif view == "subspaces":
        _subspaces(entry, layer, place, share)
    else:
        _pictures(entry, layer, place, share, readings)


def _pictures(
    entry: Entry, layer: Layer, place: tuple[str, int, str], share: float, readings: pd.DataFrame
) -> None:
    methods = [str(name) for name in readings.loc[readings["kind"] != "point", "method"].unique()]
    st.session_state.setdefault(_SHOWN, list(_FIRST))
    shown = st.pills("Methods in pictures", methods, selection_mode="multi", key=_SHOWN)
    charts.title(
        "The weight, and the parts that each method keeps and loses",
        help="Every tile shows the root mean square of its weights, all on one colour scale.",
    )
    close = layer_desk.close_up(entry, *place)
    dense = close.dense()
    found = {method: close.picture(method, share) for method in methods if method in shown}
    colours = subspaces.picture_range([dense])
    places = charts.places(1 + len(found), in_row=3)
    with places[0]:
        charts.title("Weight")
        figure = subspaces.picture_figure(dense, layer.shape, colours)
        charts.show(figure, subspaces.picture_table(dense), "picture-weight", "Picture of the weight")
    for where, (method, picture) in zip(places[1:], found.items(), strict=True):
        row = readings[readings["method"] == method].iloc[0]
        becomes = lowrank.structure_words(row["kind"], row["amount"], share)
        with where:
            charts.title(plain(f"{method}, {becomes}"))
            figure = subspaces.pair_figure(picture.kept, picture.lost, layer.shape, colours)
            table = subspaces.pair_table(picture.kept, picture.lost)
            charts.show(
                figure, table, f"picture-{method}", f"Parts of the weight that {method} keeps and loses"
            )
    st.caption(
        f"Rows: {layer.shape[0]} outputs, columns: {layer.shape[1]} inputs, averaged over tiles of at most 64 × 64. "
        "Left: kept; right: lost. One colour scale for all, from 1/30 of the largest value."
    )


def _spectra(entry: Entry, layer: Layer, share: float) -> None:
    charts.title("Singular values", help=GLOSSARY["singular"])
    rank = stored_size.rank_at(*layer.shape, share)
    st.caption(
        f"Grey: the weight alone, which plain svd truncates. Coloured: the weight on each domain's inputs, which "
        f"whitened-svd truncates. The line marks rank {rank}, which fits into {percent(share, 2)} of the bytes; "
        "values to its right are lost."
    )
    table = subspaces.spectrum_table(layer.curves.spectra)
    charts.show(subspaces.spectrum_figure(table, rank), table, "spectra", "Singular values by size")
    st.caption(f"Protocol: {plain(entry.stamp)}")


def _subspaces(entry: Entry, layer: Layer, place: tuple[str, int, str], share: float) -> None:
    names = ("whitened-svd", "svd", "basel")
    decomposition = st.segmented_control(
        "Directions of", names, default=names[0], required=True, key="subspace-of", help=GLOSSARY["rank"]
    )
    if share >= 1:
        empty_state("Nothing is removed", "Move the slider below 100 % to compare subspaces.")
        return
    close = layer_desk.close_up(entry, *place)
    overlaps = {
        mask: close.subspace(mask, str(decomposition), share) for mask in ("copal", "wanda", "magnitude")
    }
    rank = next(iter(overlaps.values())).rank
    left, right = st.columns(2, gap="medium")
    with left:
        charts.title("Share of the masked weight inside", help=GLOSSARY["inside"])
        values = {
            mask: (overlap.inside, overlap.dense_inside, overlap.by_chance)
            for mask, overlap in overlaps.items()
        }
        table = subspaces.inside_table(values)
        charts.show(subspaces.inside_figure(table), table, "inside", "Share of each masked weight inside")
    with right:
        charts.title("Principal angles", help=GLOSSARY["angles"])
        cosines = {mask: overlap.cosines for mask, overlap in overlaps.items() if len(overlap.cosines)}
        table = subspaces.angle_table(cosines)
        if len(table):
            charts.show(subspaces.angle_figure(table), table, "angles", "Principal angles, from the smallest")
        else:
            empty_state(
                "Too large for angles",
                "Layers of more than 2,048 directions take minutes; pick another.",
            )
    wanda = overlaps["wanda"]
    shared = int((np.degrees(np.arccos(np.clip(wanda.cosines, 0, 1))) < 30).sum())
    st.markdown(
        f"{percent(wanda.inside)} of the wanda-masked weight lies within the {rank} directions of {decomposition} "
        f"({percent(wanda.by_chance)} would by chance, and {percent(wanda.dense_inside)} of the dense weight does)."
        + (
            f" {shared} of {len(wanda.cosines)} leading directions are shared to within 30°."
            if len(table)
            else ""
        )
    )
