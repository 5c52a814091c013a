"""Neurons: which hidden neurons say the same, what removing them costs, and how much the choice matters."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Neurons")
st.caption(
    "Remove whole hidden neurons instead of single weights: the model gets smaller and faster, not only emptier."
)

# imported after the title is on the screen, as plotly takes a moment
from pages.components import neuron_form, neuron_pairs, neuron_views, runs, watch  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

VIEWS = {
    "shares": ("Cost of removing", neuron_views.shares),
    "pairs": ("Redundant pairs", neuron_pairs.one_block),
    "choice": ("Does the choice matter", neuron_views.choice),
}

store = None
with errors_shown():
    store = runs.pick(neuron_form.removes_neurons)
    if store is not None:
        if neuron_form.at_work(store):
            watch.panel(store)
        view = links.choose(
            "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
        )
        VIEWS[view][1](store)
        runs.show_warnings(store)
with errors_shown():
    neuron_form.start_form(expanded=store is None)
