"""One screen for a newcomer: an introduction, where to begin, and the question that each page answers."""

from __future__ import annotations

import streamlit as st

from copal_core.figures.numbers import several
from copal_core.store.runs import Runs
from pages.shared import links
from pages.shared.text import plain

# the pages in the order in which a question leads to the next
_QUESTIONS = (
    ("Which weights does a domain need?", "pages/sensitivity/page.py"),
    ("What is forgotten, and where does a mask stop moving?", "pages/stasis/page.py"),
    ("Would two thin factors be better than a mask?", "pages/lowrank/page.py"),
    ("How good is one model in several sizes?", "pages/families/page.py"),
    ("Which hidden neurons are redundant?", "pages/neurons/page.py"),
    ("Why was this weight removed, and what did that cost?", "pages/diagnose/page.py"),
    ("Is the gap between two methods more than noise?", "pages/runs/page.py"),
    ("How is a result shared or repeated?", "pages/report/page.py"),
)


def show() -> None:
    """Show the introduction, which sends a newcomer to the lesson first."""
    st.markdown(
        "Half of a language model's weights are removed. Then one domain of text after another is added, and each "
        "needs different weights. **See which ones, what the model forgets, and where its mask stops moving.**"
    )
    first, second, third = st.columns(3, gap="medium")
    with first, st.container(border=True):
        st.markdown("**1. New to this? Start here**")
        st.markdown("Eight short steps on a layer small enough to draw. No installation, no waiting.")
        if st.button("Start the lesson", type="primary", icon=":material/school:", key="start-lesson"):
            links.write("lesson", None)  # from the first step, wherever the reader stopped before
            st.switch_page("pages/learn/page.py")
    with second, st.container(border=True):
        st.markdown("**2. Look at a finished run**")
        st.markdown(_finished())
        st.page_link("pages/stasis/page.py", label="Open the newest run", icon=":material/trending_up:")
    with third, st.container(border=True):
        st.markdown("**3. Prune a model yourself**")
        st.markdown("Choose a checkpoint, order the domains, start. With **tiny** a run takes seconds.")
        st.page_link("pages/checkpoint/page.py", label="Choose a checkpoint", icon=":material/deployed_code:")
    st.header("Questions that the pages answer", anchor=False)
    halves = _QUESTIONS[: (len(_QUESTIONS) + 1) // 2], _QUESTIONS[(len(_QUESTIONS) + 1) // 2 :]
    for column, questions in zip(st.columns(2, gap="medium"), halves, strict=True):
        for question, page in questions:
            column.page_link(page, label=question, icon=":material/arrow_forward:")


def _finished() -> str:
    """Describe the newest finished run: the user's own, else the recorded one."""
    done = [run for run in Runs().list() if run.status == "done"]
    if not done:
        return "There is none yet. The first one appears as soon as it is computed."
    run = next((run for run in done if not run.recorded), done[0])
    kind = "A recorded one comes with the app" if run.recorded else "Your newest"
    domains, methods = several(len(run.domains), "domain"), several(len(run.methods), "method")
    return f"{kind}: {plain(run.title or run.checkpoint)}, {domains}, {methods}."
