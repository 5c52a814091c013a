"""Diagnose: why a weight went, what that cost on a text, where a domain was forgotten, and what looks unwell."""

from __future__ import annotations

import streamlit as st

from pages.shared import links

st.title("Diagnose")
st.caption("Why was this weight pruned, and what did it cost?")

# imported after the title is on the screen
from pages.diagnose import forgetting, health, texts, weight  # noqa: E402
from pages.shared import runs  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

VIEWS = {
    "text": ("One text", texts.draw),
    "weight": ("One weight", weight.draw),
    "attribution": ("Forgetting", forgetting.draw),
    "health": ("Health", health.draw),
}

with errors_shown():
    store = runs.pick()
    if store is not None:
        view = links.choose(
            "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
        )
        VIEWS[view][1](store)
