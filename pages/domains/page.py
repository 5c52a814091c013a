"""Domains: the ordered texts that a model is pruned for, and the windows drawn from them."""

from __future__ import annotations

import streamlit as st

st.title("Domains")
st.caption(
    "The texts that the model is pruned for, one after another. Their order is the order of the steps."
)

from pages.domains import timeline  # noqa: E402  (the title is on the screen before anything else is imported)

left, right = st.columns([3, 2], gap="large")
with left:
    timeline.show()
    st.page_link(
        "pages/prune/page.py", label="Next: choose methods and start", icon=":material/arrow_forward:"
    )
with right:
    st.markdown("**Add a domain**")
    timeline.add_form()
timeline.preview()
