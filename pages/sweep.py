"""Sweep: a grid of runs at once, as a front and as small multiples."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Sweep")
st.caption(
    "Many runs at once: checkpoints, methods, structures, seeds and orders of domains, and what each is worth."
)

# imported after the title is on the screen, as plotly takes a moment
from pages.components import actions, sweep_form, sweep_views  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

with errors_shown():
    actions.say_outcome()
    group = sweep_views.pick()
    if group is not None:
        sweep_views.show(group)
    sweep_form.show(expanded=group is None)
