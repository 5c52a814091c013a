"""Neurons: which hidden neurons say the same, what removing them costs, and how much the choice matters."""

from __future__ import annotations

import streamlit as st

from pages.shared import links

st.title("Neurons")
st.caption(
    "Remove whole hidden neurons instead of single weights: the model gets smaller and faster, not only emptier."
)

# imported after the title is on the screen, as plotly takes a moment
from pages.neurons import form, pairs, views  # noqa: E402
from pages.shared import run_panel, runs  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

VIEWS = {
    "shares": ("Cost of removing", views.shares),
    "pairs": ("Redundant pairs", pairs.one_block),
    "choice": ("Does the choice matter", views.choice),
}

store = None
with errors_shown():
    store = runs.pick(form.removes_neurons)
    if store is not None:
        if form.at_work(store):
            run_panel.panel(store)
        view = links.choose(
            "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
        )
        VIEWS[view][1](store)
        runs.show_warnings(store)
with errors_shown():
    form.start_form(expanded=store is None)
