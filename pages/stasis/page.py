"""Stasis and forgetting: what later domains cost earlier ones, and where masks stop moving."""

from __future__ import annotations

import streamlit as st

from pages.shared import links

st.title("Stasis and forgetting")
st.caption("What adding a domain costs the earlier ones, and how much of the mask still moves.")

# imported after the title is on the screen, as plotly takes a moment
from pages.shared import runs  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402
from pages.stasis import views  # noqa: E402

VIEWS = {
    "forgetting": ("Forgetting", views.forgetting),
    "matrix": ("Matrix", views.matrices),
    "stasis": ("Stasis", views.stasis),
    "overlap": ("Mask overlap", views.overlap),
}

with errors_shown():
    store = runs.pick()
    if store is not None:
        view = links.choose(
            "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
        )
        VIEWS[view][1](store)
        runs.show_warnings(store)
