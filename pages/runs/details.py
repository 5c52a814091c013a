"""One run, opened in the list: where to look at it, its name and note, and what may be done with it."""

from __future__ import annotations

import streamlit as st

from copal_core.experiment import processes
from copal_core.store import shelf
from copal_core.domains import builtins, find, hub_presets
from copal_core.store.folder import ACTIVE
from copal_core.store.run_store import RunStore
from pages.runs import compare, trash
from pages.shared import actions, draft, exports, links, run_panel, runs, timeline
from pages.shared.text import plain

_PAGES = {
    "sensitivity": ("Sensitivity", ":material/grid_on:"),
    "stasis": ("Stasis and forgetting", ":material/trending_up:"),
    "diagnose": ("Diagnose", ":material/troubleshoot:"),
    "prune": ("Watch", ":material/visibility:"),
    "report": ("Report", ":material/description:"),
}


def show(store: RunStore) -> None:
    """Everything about `store`; what is not possible says why."""
    state = store.state()
    runs.stamp(store)
    _pages(store)
    if store.recorded:
        st.caption(
            "A recorded run ships with the product: it can be looked at and compared, and not be changed."
        )
        return
    run_panel.progress(store)
    _names(store)
    with st.container(horizontal=True):
        _branch(store)
        _undo(store)
        st.button(
            "Delete",
            key="delete-run",
            icon=":material/delete:",
            on_click=_delete,
            args=(store,),
            disabled=state.status in ACTIVE,
            help="Moves the run into the trash, from which it can be taken back.",
        )


def _pages(store: RunStore) -> None:
    with st.container(horizontal=True, gap="medium"):
        for page, (name, icon) in _PAGES.items():
            if page == "prune" and store.recorded:
                continue  # there is nothing to watch
            st.page_link(f"pages/{page}/page.py", label=name, icon=icon)
    with st.expander("Link to copy", type="compact", key="link-to-copy"):
        st.code(link_to(store, "stasis"), language=None, wrap_lines=True)
        st.code(f"python -m copal_core show {store.id}", language="bash", wrap_lines=True)


def link_to(store: RunStore, page: str) -> str:
    """The full address of a page with this run; without a browser, the part after the server's name."""
    address = str(getattr(st.context, "url", "") or "")
    base = address.partition("?")[0].rstrip("/")
    base = base.removesuffix("/runs")
    return f"{base}/{page}?run={store.id}"


def _names(store: RunStore) -> None:
    with st.form(f"names-{store.id}", border=False):
        title = st.text_input("Title", str(store.info.get("title") or ""), max_chars=shelf.LONGEST_TITLE)
        note = st.text_area(
            "Note", str(store.info.get("note") or ""), max_chars=shelf.LONGEST_NOTE, height=80
        )
        if st.form_submit_button("Save", icon=":material/save:"):
            actions.attempt(shelf.rename, store, title or "")
            actions.attempt(shelf.note, store, note or "", done="Saved.")
            st.rerun()


def _branch(store: RunStore) -> None:
    finished = [step for step in range(1, len(store.domains) + 1) if _complete(store, step)]
    with st.popover("Branch", icon=":material/call_split:", disabled=not finished):
        st.caption("The same past up to a step, another domain next. Nothing of the past is computed again.")
        step = st.selectbox(
            "After",
            finished,
            index=len(finished) - 1,
            key="branch-step",
            format_func={step: runs.step_name(store, step) for step in finished}.get,
        )
        used = set(store.config.domains[: step or 0])
        options = [spec for spec in _domains() if spec not in used]
        domain = st.selectbox("Next domain", options, key="branch-domain", format_func=timeline.label_of)
        st.button(
            "Branch and start", key="branch-run", type="primary", on_click=_start_branch, args=(store, step, domain),
            disabled=not (step and domain),
        )  # fmt: skip


def _undo(store: RunStore) -> None:
    last = len(store.domains)
    st.button(
        f"Undo {plain(store.domains[-1])}",
        key="undo-run",
        icon=":material/undo:",
        on_click=_start_undo,
        args=(store,),
        disabled=last < 2 or not _complete(store, last - 1),
        help="A new run without the last domain, from what was computed before it. This run stays as it is.",
    )


def _complete(store: RunStore, step: int) -> bool:
    """Whether every method's perplexity after `step` is known on every domain."""
    table = runs.table(store, "perplexity")
    counts = table[table["step"] == step].groupby("method")["domain"].nunique()
    return all(counts.get(method, 0) >= len(store.domains) for method in runs.methods_of(store))


def _domains() -> list[str]:
    """What may come next: what is built in, what the draft holds, and the hub's presets."""
    known = [one.name for one in builtins() if one.available]
    return list(dict.fromkeys([*known, *draft.values()["domains"], *hub_presets()]))


# -- what the buttons do -------------------------------------------------------------------------------


def _start_branch(store: RunStore, step: int, domain: str) -> None:
    def begin() -> RunStore:
        find(domain)  # refuse an unknown one before a run's folder is made
        new = processes.branch(store, step, domain)
        processes.start(new)
        return new

    new = actions.attempt(begin, done="The branch is being computed; it is opened below.")
    if new is not None:
        links.write("run", new.id)


def _start_undo(store: RunStore) -> None:
    new = actions.attempt(processes.undo, store, done=f"{store.domains[-1]} is undone in a new run, opened below.")
    if new is not None:
        links.write("run", new.id)


def _delete(store: RunStore) -> None:
    def move() -> tuple[str]:
        title = str(store.info.get("title") or "")
        shelf.delete(store)
        return (title,)

    moved = actions.attempt(move)
    if moved:
        links.write("run", None)
        compare.forget(store.id)
        exports.forget(store.id)
        trash.remember(store.id, *moved)
