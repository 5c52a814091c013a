"""Learn: a guided lesson on an interactive toy layer and on the recorded run."""

from __future__ import annotations

import streamlit as st

st.title("Learn")
st.caption("Eight short steps. Try each picture, answer each question; you cannot break anything.")

# imported after the title is on the screen, as plotly takes a moment
from pages.learn import lesson  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

with errors_shown():
    lesson.show()
