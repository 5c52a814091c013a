"""Sensitivity: importance of each layer to a method, after each domain."""

from __future__ import annotations

import streamlit as st

st.title("Sensitivity")
st.caption(
    "How important each layer's weights are to a method after each domain. Click a cell to see its details."
)

# imported after the title is on the screen, as plotly takes a moment
from pages.sensitivity import cell, maps  # noqa: E402
from pages.shared import layer_choice, runs  # noqa: E402
from pages.shared.text import empty_state, errors_shown  # noqa: E402

with errors_shown():
    store = runs.pick()
    if store is not None and not runs.mask_methods_of(store):
        empty_state(
            "This run has no masks",
            "Its methods make factors or remove whole neurons: see **Stasis and forgetting** for perplexity, "
            "**Neurons** for neurons.",
        )
    elif store is not None:
        choices = maps.draw(store)
        st.subheader("Inside one layer")
        cell.draw(store, choices, *layer_choice.choose_cell(store))
        st.page_link(
            "pages/diagnose/page.py",
            label="Inspect single weights",
            icon=":material/troubleshoot:",
            query_params={"view": "weight"},
        )
        runs.say_left_out(store)
        runs.show_warnings(store)
