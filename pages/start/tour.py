"""One screen for a newcomer: what this is, where to begin, and what each page answers."""

from __future__ import annotations

import streamlit as st

from copal_core.figures.numbers import several
from copal_core.store.runs import Runs
from pages.shared import links
from pages.shared.text import plain

# the pages in the order in which a question leads to the next
_QUESTIONS = (
    ("Which weights does a domain ask for?", "pages/sensitivity/page.py"),
    ("What is forgotten, and where does a mask stand still?", "pages/stasis/page.py"),
    ("Would two thin factors be better than a mask?", "pages/lowrank/page.py"),
    ("One model in several sizes?", "pages/families/page.py"),
    ("Which hidden neurons say the same thing twice?", "pages/neurons/page.py"),
    ("Why did this weight go, and what did that cost?", "pages/diagnose/page.py"),
    ("Is the gap between two methods more than noise?", "pages/runs/page.py"),
    ("How is a result handed on, or repeated?", "pages/report/page.py"),
)


def show() -> None:
    """The introduction. A newcomer is sent to the lesson first."""
    st.markdown(
        "Half of a language model's weights are removed. Then one domain of text after another is added, and each "
        "asks for other weights. **See which ones, what the model forgets, and where its mask stops moving.**"
    )
    first, second, third = st.columns(3, gap="medium")
    with first, st.container(border=True):
        st.markdown("**1. New to this? Start here**")
        st.markdown(
            "Eight short steps on a layer small enough to draw. Nothing to install, nothing to wait for."
        )
        if st.button("Start the lesson", type="primary", icon=":material/school:", key="start-lesson"):
            links.write("lesson", None)  # from the first step, whatever was read before
            st.switch_page("pages/learn/page.py")
    with second, st.container(border=True):
        st.markdown("**2. Look at a finished run**")
        st.markdown(_finished())
        st.page_link("pages/stasis/page.py", label="Open the newest run", icon=":material/trending_up:")
    with third, st.container(border=True):
        st.markdown("**3. Prune a model yourself**")
        st.markdown("Choose a checkpoint, put domains in order, start. With **tiny** a run takes seconds.")
        st.page_link("pages/checkpoint/page.py", label="Choose a checkpoint", icon=":material/deployed_code:")
    st.header("What the pages answer", anchor=False)
    halves = _QUESTIONS[: (len(_QUESTIONS) + 1) // 2], _QUESTIONS[(len(_QUESTIONS) + 1) // 2 :]
    for place, questions in zip(st.columns(2, gap="medium"), halves, strict=True):
        for question, page in questions:
            place.page_link(page, label=question, icon=":material/arrow_forward:")


def _finished() -> str:
    """What there is to look at; the newest finished run of one's own first."""
    done = [run for run in Runs().list() if run.status == "done"]
    if not done:
        return "None is here yet. The first one appears as soon as it is computed."
    run = next((one for one in done if not one.recorded), done[0])
    kind = "A recorded one comes with the app" if run.recorded else "Your newest"
    domains, methods = several(len(run.domains), "domain"), several(len(run.methods), "method")
    return f"{kind}: {plain(run.title or run.checkpoint)}, {domains}, {methods}."
