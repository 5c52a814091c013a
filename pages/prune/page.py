"""Prune: choose methods and a protocol, see what they cost, start a run and watch it."""

from __future__ import annotations

import streamlit as st

st.title("Prune")
st.caption("Choose what to compare, see what it costs, start. A run goes on when this page is closed.")

# imported after the title is on the screen
from pages.prune import form  # noqa: E402
from pages.shared import draft, run_panel, runs  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

store = None
with errors_shown():
    store = runs.open_linked()
    if store is not None:
        run_panel.panel(store)
        if not store.recorded:
            draft.follow(store.id, store.config)

left, right = st.columns([3, 2], gap="large")
with left:
    if store is not None and not store.recorded:
        form.compared_with(store)
    form.chosen_so_far()
    form.methods()
    form.structure()
    form.protocol()
with right, st.container(border=True), errors_shown():
    form.before_start()
