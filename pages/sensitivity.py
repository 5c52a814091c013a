"""Sensitivity: what each domain makes a method consider important, layer by layer."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Sensitivity")
st.caption("How important each layer's weights are to a method after each domain. Click a cell to look inside the layer.")

from copal_core.figures import layers  # noqa: E402  (the title is on the screen before plotly is imported)
from pages.components import charts, layer_views, runs  # noqa: E402
from pages.components.text import plain  # noqa: E402

store = runs.pick()
if store is None:
    st.stop()

view = links.choose(
    "View",
    "view",
    ["one", "compare"],
    show=lambda value: {"one": "One map", "compare": "Compare two"}[value],
    segments=True,
    hidden_label=True,
)
with st.container(border=True):
    first = layer_views.choose_map(store)
    choices = [first]
    if view == "compare":
        choices.append(layer_views.choose_map(store, "other_", default=-1))
    metric = links.choose(
        "Colour",
        "metric",
        list(layers.METRICS),
        show=lambda name: layers.METRICS[name].label,
        help="  \n".join(f"**{one.label}**: {one.explanation}" for one in layers.METRICS.values()),
    )

records = runs.table(store, "layers")
tables = [layers.layer_table(records, choice.method, choice.step, metric) for choice in choices]
colours = layers.colour_range(metric, *tables)
for index, (choice, table) in enumerate(zip(choices, tables, strict=True)):
    charts.title(
        f"{layers.METRICS[metric].label}: {plain(choice.method)} after {plain(runs.step_name(store, choice.step))}",
        help=layers.METRICS[metric].explanation + " Compared maps share one colour scale.",
    )
    layer_views.draw_map(store, choice, metric, colours, table, f"layers-{index + 1}")
if view == "compare":
    layer_views.draw_difference(store, *tables, metric)

st.subheader("Inside one layer")
block, projection = layer_views.choose_cell(store, records)
layer_views.draw_cell(store, choices, block, projection)
runs.show_warnings(store)
