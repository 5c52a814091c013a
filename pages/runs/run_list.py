"""The list of runs: filters, one card a run, and the open card's details."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from copal_core.store import shelf
from copal_core.errors import CopalError
from copal_core.figures.numbers import several, size
from copal_core.store.runs import RunSummary, Runs, matching
from pages.runs import compare, details, trash
from pages.shared import actions, links, runs
from pages.shared.text import empty_state, plain, show_error, show_problem

STATUS_COLOURS = {"done": "green", "running": "blue", "created": "blue", "failed": "red"}
STATUS_ICONS = {
    "done": ":material/check:",
    "running": ":material/sync:",
    "created": ":material/sync:",
    "failed": ":material/error:",
}
_A_PAGE = 10
_ALL = "All"


def show() -> None:
    """Filters, the runs that meet them, and how much disk they take."""
    actions.say_outcome()
    trash.offer_back()
    known = Runs().list()
    wanted = links.read("run")
    if wanted is not None and wanted not in {run.id for run in known}:
        show_error(runs.why_not(wanted))
    for run_id, why in Runs().damaged().items():
        show_problem(f"{run_id} cannot be read and is left as it is: {why}")
    if not known:
        empty_state("No runs yet", "Go to **Prune**, choose methods and start a run; it then appears here.")
        return
    found = _filtered(known)
    _summary(known, found)
    compare.bar()
    if not found:
        empty_state("No run meets these filters", "Clear a filter above to see more.")
        return
    for run in _page_of(found):
        _card(run)


def _filtered(known: list[RunSummary]) -> list[RunSummary]:
    with st.container(border=True):
        text = st.text_input(
            "Search",
            key="filter-text",
            placeholder="title, note or id",
            icon=":material/search:",
            max_chars=100,
        )
        with st.expander("More filters", type="compact", key="more-filters"):
            first, second, third, fourth = st.columns(4)
            with first:
                status = _choice("Status", "status", {run.status for run in known})
            with second:
                checkpoint = _choice("Checkpoint", "checkpoint", {run.checkpoint for run in known})
            with third:
                domain = _choice("Domain", "domain", {name for run in known for name in run.domains})
            with fourth:
                method = _choice("Method", "method", {name for run in known for name in run.methods})
        grouped = sum(bool(run.group) for run in known)
        members = not grouped or st.toggle(
            f"Show the {grouped} runs of groups",
            key="filter-members",
            help="Repeats over seeds, sizes or orders.",
        )
    chosen = known if members else [run for run in known if not run.group or run.id == links.read("run")]
    return matching(chosen, status, checkpoint, domain, method, text or "")


def _choice(label: str, name: str, values: set[str]) -> str | None:
    chosen = st.selectbox(label, [_ALL, *sorted(values)], key=f"filter-{name}")
    return None if chosen == _ALL else chosen


def _summary(known: list[RunSummary], found: list[RunSummary]) -> None:
    root = Runs().root
    total = _total(str(root), tuple(run.id for run in known))
    count = f"{len(found)} of {len(known)} runs" if len(found) < len(known) else several(len(known), "run")
    st.caption(
        f"{count} · {size(total)} on disk in {plain(root)}",
        help="Files that a branch shares with the run it came from are counted once.",
    )


def _page_of(found: list[RunSummary]) -> list[RunSummary]:
    """Ten runs at a time; the one in the link is on the page that opens first."""
    pages = -(-len(found) // _A_PAGE)
    if pages == 1:
        return found
    ids = [run.id for run in found]
    linked = links.read("run")
    default = ids.index(linked) // _A_PAGE if linked in ids else 0
    number = st.pagination(pages, default=default + 1, key=f"page-{pages}")
    return found[(number - 1) * _A_PAGE : number * _A_PAGE]


def _card(run: RunSummary) -> None:
    opened = links.read("run") == run.id
    with st.container(border=True, key=f"card-{run.id}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.container(width="stretch", gap="xsmall"):
                st.markdown(f"**{plain(name_of(run))}**")
                st.caption(_line(run))
            _badge(run)
            compare.tick(run.id)
            st.button(
                "Close" if opened else "Open",
                key=f"open-{run.id}",
                on_click=links.write,
                args=("run", None if opened else run.id),
                icon=":material/expand_less:" if opened else ":material/expand_more:",
            )
        if run.note:
            st.caption(f":material/sticky_note_2: {plain(run.note)}")
        if opened:
            try:
                details.show(Runs().open(run.id))
            except CopalError as error:
                st.error(plain(error))


def name_of(run: RunSummary) -> str:
    return run.title or f"{run.checkpoint}, {several(len(run.domains), 'domain')}"


def _badge(run: RunSummary) -> None:
    words = "recorded" if run.recorded else {"created": "starting"}.get(run.status, run.status)
    colour = "gray" if run.recorded else STATUS_COLOURS.get(run.status, "orange")
    st.badge(words, icon=STATUS_ICONS.get(run.status, ":material/pause:"), color=colour, width="content")


def _line(run: RunSummary) -> str:
    methods = run.methods[0] if len(run.methods) == 1 else f"{len(run.methods)} methods"
    parts = [
        run.created[:16].replace("T", " "),
        run.checkpoint,
        " → ".join(run.domains),
        methods,
        size(bytes_of(run)),
    ]
    return " · ".join(plain(part) for part in parts)


def bytes_of(run: RunSummary) -> int:
    """The run's size on disk, counted again only when its records or its status have changed."""
    try:
        store = Runs().open(run.id)
    except CopalError:  # deleted in another window, between the list and the card
        return 0
    path = store.folder / "status.json"
    status = path.stat().st_mtime_ns if path.exists() and run.status != "running" else 0
    return _bytes(str(store.folder), runs.version(store), status)


@st.cache_data(max_entries=2000, show_spinner=False)
def _bytes(folder: str, records: runs.Version, status: int) -> int:
    return shelf.disk_use([Path(folder)])


@st.cache_data(max_entries=4, ttl=60, show_spinner=False)
def _total(root: str, ids: tuple[str, ...]) -> int:
    return shelf.disk_use([Path(root)])
