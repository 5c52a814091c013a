"""Checkpoint: choose a model and see its description before anything is loaded."""

from __future__ import annotations

import streamlit as st

st.title("Checkpoint")
st.caption("The model to prune. Nothing is loaded before you start a run.")

# imported after the title is on the screen
from pages.checkpoint import form  # noqa: E402
from pages.shared import checkpoints  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

with errors_shown():
    name = form.form()
    if name is not None:
        description = checkpoints.described(name)
        if description is None:
            checkpoints.prepare(name)
        else:
            checkpoints.describe(description)
            st.page_link(
                "pages/domains/page.py", label="Next: choose domains", icon=":material/arrow_forward:"
            )
