"""One short screen for a newcomer: what this is, and where to look first."""

from __future__ import annotations

import streamlit as st

from copal_core.runs import Runs

_HIDDEN = "tour-hidden"


def show() -> None:
    """The introduction, until it is put away for this session."""
    if st.session_state.get(_HIDDEN):
        return
    with st.container(border=True):
        st.markdown(
            "**COPAL Explorer shows what continual pruning does to a language model.** Half of its weights are "
            "removed; then one domain of text after another is added, and each changes which weights matter. "
            "See which ones, what the model forgets, and where its mask stops moving."
        )
        if any(run.status == "done" for run in Runs().list()):
            st.markdown(
                "Nothing needs to be computed for a first look: a finished run is open on these pages."
            )
        with st.container(horizontal=True, gap="medium"):
            st.page_link("pages/sensitivity.py", label="Which weights matter", icon=":material/grid_on:")
            st.page_link("pages/stasis.py", label="What is forgotten", icon=":material/trending_up:")
            st.page_link("pages/prune.py", label="Start a run of your own", icon=":material/content_cut:")
        st.button("Hide this introduction", type="tertiary", on_click=_hide)


def _hide() -> None:
    st.session_state[_HIDDEN] = True
