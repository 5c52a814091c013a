"""What the four parts of the Diagnose page share: results to choose from, and what to do where a run has none."""

from __future__ import annotations

from collections.abc import Hashable

import streamlit as st

from copal_core.analysis.diagnosis.kept import Result, kept_results
from copal_core.errors import CopalError
from copal_core.experiment import processes
from copal_core.figures.numbers import duration
from copal_core.store.run_store import RunStore
from copal_core.store.runs import Runs
from pages.shared import checkpoints, links, runs, tasks
from pages.shared.text import plain, show_error

_ERROR = "diagnose-error"


def kept(store: RunStore) -> list[Result]:
    """Results of the run whose weights are kept; looked up once while its records do not change."""
    return _kept(str(store.folder), store.id, runs.version(store))


@st.cache_data(max_entries=40, show_spinner=False)
def _kept(folder: str, run: str, changed: runs.Version) -> list[Result]:
    return kept_results(Runs().open(run))


def choose_result(store: RunStore, found: list[Result], prefix: str, default: Result, which: str) -> Result:
    """Method and step of one result, from the URL."""
    left, right = st.columns(2)
    methods = list(dict.fromkeys(one.method for one in found))
    with left:
        method = links.choose(f"{which}: method", f"{prefix}method", methods, default.method)
    steps = [one.step for one in found if one.method == method]
    with right:
        step = links.choose(
            "After domain",
            f"{prefix}step",
            steps,
            default.step,
            show=lambda number: runs.step_name(store, number),
        )
    return Result(method, step)


def name_of(store: RunStore, result: Result) -> str:
    return f"{result.method} after {runs.step_name(store, result.step)}"


def nothing_kept(store: RunStore, purpose: str) -> None:
    """In place of a part that needs weights: why there are none, and how to have them. `purpose`: our own words."""
    for message in st.session_state.pop(_ERROR, []):
        show_error(CopalError(message))
    with st.container(border=True):
        st.markdown("**This run keeps no masks**")
        why = (
            "It ships with the product, without the masks of its results: they would be many times its size."
            if store.recorded
            else "No step of it is finished yet."
        )
        st.markdown(f"{why} {purpose}")
        others = _others(store)
        if others:
            st.markdown("Runs of the same checkpoint that keep theirs:")
            for run, title in others[:4]:
                st.button(plain(title), key=f"open-{run}", on_click=links.write, args=("run", run))
        if store.recorded:
            st.markdown(
                f"The same run can be computed again here{_minutes(store)}; it then has all that this page needs."
            )
            st.button(
                "Compute this run again", key="run-again", on_click=_again, args=(store,), type="primary",
                icon=":material/replay:",
            )  # fmt: skip
        else:
            st.page_link("pages/prune/page.py", label="Watch the run", icon=":material/sync:")


def _minutes(store: RunStore) -> str:
    """How long computing it takes, where that can be told at once."""
    try:
        description = checkpoints.described(store.config.checkpoint)
    except CopalError:
        return ""
    if description is None:
        return ""
    from copal_core.experiment import preflight

    return f", in about {duration(60 * preflight.minutes(store.config, description))}"


def _others(store: RunStore) -> list[tuple[str, str]]:
    """(id, title) of finished runs of the same checkpoint that keep their weights."""
    found = []
    for summary in Runs().list():
        if (
            summary.checkpoint == store.config.checkpoint
            and not summary.recorded
            and summary.status == "done"
        ):
            title = summary.title or f"{', '.join(summary.methods[:3])}, {summary.created[:10]}"
            found.append((summary.id, title))
    return found


def _again(store: RunStore) -> None:
    """The same configuration as a run of one's own."""
    try:
        new = Runs().create(store.config, str(store.info.get("title") or ""))
        processes.start(new)
        links.write("run", new.id)
    except CopalError as error:
        st.session_state[_ERROR] = [str(error)]


def watched(*arguments: Hashable) -> tasks.Task | None:
    """Return the finished task with these arguments, None while there is none; show its progress or its error."""
    task = tasks.find(*arguments)
    return None if tasks.at_work(task) or task is None or task.error is not None else task
