"""Report: a run as files to keep, to hand in and to repeat."""

from __future__ import annotations

import streamlit as st

st.title("Report")
st.caption(
    "A run as files: to read without this app, to compute with elsewhere, to repeat to the last digit."
)

# imported after the title is on the screen
from pages.report import views  # noqa: E402
from pages.shared import runs  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

with errors_shown():
    store = runs.pick()
    if store is not None:
        runs.stamp(store)
        views.show(store)
