"""Frame of the lesson: the current step with its text, picture, question and navigation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from pages.learn import domain_pictures, layer_pictures, recorded_run
from pages.learn.state import remembered, widget
from pages.learn.texts import STEPS, Question, Step
from pages.shared import links
from pages.shared.words import GLOSSARY

# the interactive picture of each step; each takes a container for its controls and one for itself
_PICTURES: tuple[Callable[[Any, Any], None], ...] = (
    layer_pictures.by_hand,
    layer_pictures.calibration,
    layer_pictures.scores,
    domain_pictures.standing_still,
    domain_pictures.forgetting,
    domain_pictures.accumulating,
    domain_pictures.rank,
    recorded_run.real_run,
)

_SHOWN, _ARRIVED = "lesson-shown", "lesson-arrived"
_TO_THE_TOP = """
document.querySelector('[data-testid="stMain"]')?.scrollTo(0, 0);
const heading = document.querySelector('[data-testid="stMain"] h1');
heading?.setAttribute('tabindex', '-1');
heading?.focus({ preventScroll: true });
"""
_SPELT = {"bwt": "backward transfer", "bytes": "stored bytes"}


def show() -> None:
    """Show the step that the URL names, the first by default."""
    numbers = list(range(1, len(STEPS) + 1))
    number = links.choose("Step", "lesson", numbers, segments=True)
    step = STEPS[number - 1]
    _from_the_top(number)
    st.header(f"{number}. {step.title}", anchor=False)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(step.text)
        _words(step)
    _PICTURES[number - 1](left, right)
    left, right = st.columns([2, 3], gap="large")
    with left:
        recorded_run.beside(number)
    with right:
        _ask(number, step.question)
        _navigation(number)


def _words(step: Step) -> None:
    """Show the step's glossary words, each with its meaning on hover and on focus."""
    with st.container(horizontal=True, gap="small"):
        for word in step.words:
            st.caption(_SPELT.get(word, word), help=GLOSSARY[word], width="content")


def _ask(number: int, question: Question) -> None:
    with st.container(border=True):
        texts = [option.text for option in question.options]
        chosen = remembered(f"answer-{number}", None)
        st.radio(
            f"**{question.text}**",
            texts,
            index=None if chosen not in texts else texts.index(chosen),
            **widget(f"answer-{number}", None),
        )
        chosen = remembered(f"answer-{number}", None)
        option = next((option for option in question.options if option.text == chosen), None)
        if option is None:
            st.caption("Choose an answer; its explanation appears immediately.")
        elif option.right:
            st.success(f"**Yes.** {option.why()}", icon=":material/check_circle:")
        else:
            st.info(f"**Not quite.** {option.why()}", icon=":material/lightbulb:")


def _navigation(number: int) -> None:
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Back", key="lesson-back", icon=":material/arrow_back:", disabled=number == 1,
            on_click=links.write, args=("lesson", number - 1),
        )  # fmt: skip
        if number < len(STEPS):
            st.button(
                "Next", key="lesson-next", type="primary", icon=":material/arrow_forward:", icon_position="right",
                on_click=links.write, args=("lesson", number + 1),
            )  # fmt: skip
    if number < len(STEPS):
        st.caption(f"Next: {STEPS[number].title}")
    else:
        st.page_link("pages/stasis/page.py", label="Every figure of this run", icon=":material/trending_up:")
        st.page_link("pages/prune/page.py", label="Start a run of your own", icon=":material/content_cut:")


def _from_the_top(number: int) -> None:
    """Scroll to the top and move the focus there when the step has changed.

    The element is always present and does not change within a step, so that nothing below it is redrawn.
    """
    before = st.session_state.get(_SHOWN, number)
    st.session_state[_SHOWN] = number
    if before != number:
        st.session_state[_ARRIVED] = number
    arrived = int(st.session_state.get(_ARRIVED, 0))
    # a constant script; the step's number changes the element, which makes it run again
    st.html(f"<script>if ({arrived:d}) {{ {_TO_THE_TOP} }}</script>", unsafe_allow_javascript=True)
