"""Start: an introduction, and where to begin."""

from __future__ import annotations

import streamlit as st

st.title("COPAL Explorer")

# imported after the title is on the screen
from pages.shared.text import errors_shown  # noqa: E402
from pages.start import tour  # noqa: E402

with errors_shown():
    tour.show()
