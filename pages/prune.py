"""Prune: choose methods and a protocol, see what they cost, start a run and watch it."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Prune")
st.caption("Choose what to compare, see what it costs, start. A run goes on when this page is closed.")

# imported after the title is on the screen
from pages.components import draft, run_form, runs, watch  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

store = None
with errors_shown():
    store = runs.open_linked()
    if store is not None:
        watch.panel(store)
        if not store.recorded:
            draft.follow(store.id, store.config)

left, right = st.columns([3, 2], gap="large")
with left:
    if store is not None and not store.recorded:
        run_form.compared_with(store)
    run_form.chosen_so_far()
    run_form.methods()
    run_form.structure()
    run_form.protocol()
with right, st.container(border=True), errors_shown():
    run_form.before_start()
