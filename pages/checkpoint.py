"""Checkpoint: choose a model and see what it is before anything is loaded."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Checkpoint")
st.caption("The model to prune. Nothing is loaded before you start a run.")

# imported after the title is on the screen
from pages.components import checkpoints, choose_checkpoint  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

with errors_shown():
    name = choose_checkpoint.form()
    if name is not None:
        description = checkpoints.described(name)
        if description is None:
            checkpoints.prepare(name)
        else:
            checkpoints.describe(description)
            st.page_link("pages/domains.py", label="Next: choose domains", icon=":material/arrow_forward:")
