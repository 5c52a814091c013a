"""One panel for whatever a process computes: where it stands, time left, and the buttons that cancel or resume it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from copal_core.figures.numbers import duration
from copal_core.store.folder import ACTIVE, JobFolder, RunState
from copal_core.system import sharing
from pages.shared import actions
from pages.shared.text import errors_shown, plain, show_problem

Progress = Callable[[RunState], tuple[float, str]]


def written_progress(state: RunState) -> tuple[float, str]:
    """Return the share from 0 to 1 that the job has written, and its phase or message in words."""
    return state.progress, state.phase or state.message or "starting"


def show(
    job: JobFolder,
    what: str,
    resume: Callable[[], object],
    *,
    key: str = "",
    progress: Progress = written_progress,
    details: Callable[[RunState], None] | None = None,
    version: Callable[[], object] | None = None,
) -> RunState:
    """Draw a job. While it is active the panel re-reads it every second; the page runs again when it is over.

    A job that is done has no panel: the caller draws its results.

    Args:
        job: the folder that a process computes.
        what: a noun for it, such as "run"; part of the sentence about its end.
        resume: starts its process again. Shown as a button to the owner of a job that ended early.
        key: distinguishes the buttons `cancel-KEY` and `resume-KEY` of several panels on a page; `what` by default.
        progress: from its state to the share from 0 to 1 and the words on the bar.
        details: draws what is specific below the bar, each time the job is re-read.
        version: a value that changes when there is more for the page to draw; the page then runs again.

    Returns:
        Its state when the page ran.

    Raises:
        RunError: when its status.json is damaged.
    """
    state, key = job.state(), key or what
    if state.status in ACTIVE:
        _live(job, key, progress, details, version)
        return state
    actions.say_outcome(key)
    if state.status != "done":
        why = f": {state.message}" if state.message else ""
        show_problem(f"The {what} is {state.status}{why}")
        if _is_own(job):
            st.button(
                "Resume", key=f"resume-{key}", type="primary", icon=":material/play_arrow:",
                on_click=actions.attempt, args=(resume,), kwargs={"place": key},
                help="Continues after the last finished part and gives the same numbers as without the stop.",
            )  # fmt: skip
    return state


@st.fragment(run_every=1)
def _live(
    job: JobFolder,
    key: str,
    progress: Progress,
    details: Callable[[RunState], None] | None,
    version: Callable[[], object] | None,
) -> None:
    with errors_shown():
        state = job.state()
        if state.status not in ACTIVE or (version is not None and _has_changed(job, version())):
            st.rerun()
        share, words = progress(state)
        share = min(1.0, max(0.0, share))
        st.progress(share, text=f"{100 * share:.0f} %: {plain(words)}")
        actions.say_while_watching(key)
        with st.container(horizontal=True, vertical_alignment="center"):
            seconds = state.seconds_left
            left = f"About {duration(seconds)} left" if seconds is not None else "Time left: not known yet"
            st.caption(left, width="content")
            if _is_own(job):
                asked = job.cancel_requested()
                st.button(
                    "Cancelling after this block" if asked else "Cancel", key=f"cancel-{key}", disabled=asked,
                    icon=":material/stop_circle:", on_click=actions.attempt, args=(job.request_cancel,),
                    kwargs={"place": key},
                )  # fmt: skip
        if details is not None:
            details(state)


def _is_own(job: JobFolder) -> bool:
    """Return True for the owner's own; to anybody else, say why there is no button."""
    own = sharing.is_owner(job.folder)
    if not own:
        st.caption("It belongs to another person, who alone can cancel or resume it.", width="content")
    return own


def _has_changed(job: JobFolder, value: object) -> bool:
    """Compare with the value when the page was last drawn, and remember the new one."""
    drawn = st.session_state.setdefault("drawn-versions", {})
    before = drawn.setdefault(str(job.folder), value)
    drawn[str(job.folder)] = value
    return bool(before != value)
