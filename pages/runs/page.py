"""Runs: find them, name them, compare them, throw them away and take them back."""

from __future__ import annotations

import streamlit as st

from pages.shared import links

if links.read("view") in ("seeds", "orders"):  # links of earlier versions: such groups are on the page Sweep
    st.session_state["group-kind"] = links.read("view")
    links.write("view", None)
    st.switch_page("pages/sweep/page.py")
st.title("Runs")
st.caption("Everything that was computed here: find it, name it, compare it, go on from it.")

# imported after the title is on the screen, as plotly takes a moment
from pages.runs import compare, run_list, trash  # noqa: E402
from pages.shared.text import errors_shown  # noqa: E402

VIEWS = {
    "list": ("Runs", run_list.show),
    "side": ("Compare", compare.show),
    "trash": ("Trash", trash.show),
}

with errors_shown():
    view = links.choose(
        "View", "view", list(VIEWS), show=lambda name: VIEWS[name][0], segments=True, hidden_label=True
    )
    VIEWS[view][1]()
    st.page_link(
        "pages/sweep/page.py", label="Repeat over seeds, sizes and orders", icon=":material/scatter_plot:"
    )
