"""Stasis and forgetting: what later domains cost earlier ones, and where masks stop moving."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Stasis and forgetting")
st.caption("What adding a domain costs the earlier ones, and how much of the mask still moves.")

# imported after the title is on the screen, as plotly takes a moment
from pages.components import result_views, runs  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

VIEWS = {
    "forgetting": ("Forgetting", result_views.forgetting),
    "matrix": ("Matrix", result_views.matrices),
    "stasis": ("Stasis", result_views.stasis),
    "overlap": ("Mask overlap", result_views.overlap),
}

with errors_shown():
    store = runs.pick()
    if store is not None:
        view = links.choose(
            "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
        )
        VIEWS[view][1](store)
        runs.show_warnings(store)
