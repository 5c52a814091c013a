"""Start: what this is and where to begin."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("COPAL Explorer")

# imported after the title is on the screen
from pages.components import tour  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

with errors_shown():
    tour.show()
