"""Sweep: runs that differ in something, what sets their outcomes apart, and what each is worth."""

from __future__ import annotations

import streamlit as st

st.title("Sweep")
st.caption(
    "Many runs at once: seeds, calibration sizes and orders of domains, or a grid of checkpoints, methods and "
    "structures."
)

# imported after the title is on the screen, as plotly takes a moment
from pages.shared import actions  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402
from pages.sweep import form, views  # noqa: E402

with errors_shown():
    actions.say_outcome()
    group = views.pick()
    if group is not None:
        views.show(group)
    form.show(expanded=group is None)
