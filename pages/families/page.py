"""Families: one parent and its sizes (PLRD), and bases that were relearned for one domain (Basel)."""

from __future__ import annotations

import streamlit as st

st.title("Families")
st.caption("One checkpoint, several sizes: decomposed step by step, and for one target domain.")

# imported after the title is on the screen
from pages.families import form, views  # noqa: E402
from pages.shared import run_panel, runs  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

store = None
with errors_shown():
    store = runs.pick(form.is_family)
    if store is not None:
        if not store.recorded and store.state().status != "done":
            run_panel.panel(store)
        views.show(store)
        runs.show_warnings(store)
with errors_shown():
    form.start_form(expanded=store is None or not views.has_sizes(store))
