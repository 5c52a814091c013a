"""Diagnose: why a weight went, what that cost on a text, where a domain was forgotten, and what looks unwell."""

from __future__ import annotations

import streamlit as st

from pages.components import links

links.through_app(__file__)
st.title("Diagnose")
st.caption("Why was this weight pruned, and what did it cost?")

# imported after the title is on the screen
from pages.components import diagnose_forgetting, diagnose_health, diagnose_text, diagnose_weight, runs  # noqa: E402
from pages.components.text import errors_shown  # noqa: E402

VIEWS = {
    "text": ("One text", diagnose_text.draw),
    "weight": ("One weight", diagnose_weight.draw),
    "attribution": ("Forgetting", diagnose_forgetting.draw),
    "health": ("Health", diagnose_health.draw),
}

with errors_shown():
    store = runs.pick()
    if store is not None:
        view = links.choose(
            "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
        )
        VIEWS[view][1](store)
