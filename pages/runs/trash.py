"""The trash: what was deleted, and the way back."""

from __future__ import annotations

import streamlit as st

from copal_core.store import shelf
from copal_core.figures.numbers import several, size
from copal_core.store.runs import Runs
from pages.shared import actions, links
from pages.shared.text import empty_state, plain

_JUST_DELETED = "just-deleted"


def remember(run_id: str, title: str) -> None:
    """A run was deleted just now; the list offers to take it back."""
    st.session_state[_JUST_DELETED] = (run_id, title)


def offer_back() -> None:
    """Beside the list: the run that was deleted last, and a button that takes it back."""
    found = st.session_state.get(_JUST_DELETED)
    if found is None:
        return
    run_id, title = found
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f":material/delete: {plain(title or run_id)} is in the trash.", width="stretch")
        st.button("Take it back", key="undelete", on_click=_restore, args=(run_id,), icon=":material/undo:")
        st.button("Dismiss", key="dismiss", on_click=_forget)


def show() -> None:
    """Show what is in the trash."""
    actions.say_outcome()
    root = Runs().root
    found = shelf.trashed(root)
    if not found:
        empty_state("The trash is empty", "A run that is deleted lies here until the trash is emptied.")
        return
    held = shelf.disk_use([root / shelf.TRASH])
    st.caption(
        f"{several(len(found), 'run')}, {size(held)}. Files that a run outside shares are freed only with it."
    )
    for run in found:
        with (
            st.container(border=True, key=f"trash-{run.id}"),
            st.container(horizontal=True, vertical_alignment="center"),
        ):
            with st.container(width="stretch", gap="xsmall"):
                st.markdown(f"**{plain(run.title or run.id)}**")
                st.caption(plain(f"{run.id} · {run.checkpoint} · {' → '.join(run.domains)}"))
            st.button(
                "Restore", key=f"restore-{run.id}", on_click=_restore, args=(run.id,), icon=":material/undo:"
            )
    with st.popover("Empty the trash", icon=":material/delete_forever:"):
        st.markdown(f"This deletes {several(len(found), 'run')} for good. There is no way back.")
        st.button("Delete for good", key="empty-trash", type="primary", on_click=_empty)


def _restore(run_id: str) -> None:
    store = actions.attempt(shelf.restore, Runs().root, run_id, done="The run is back.")
    _forget()
    if store is not None:
        links.write("run", store.id)
        links.write("view", "list")


def _forget() -> None:
    st.session_state.pop(_JUST_DELETED, None)


def _empty() -> None:
    _forget()
    freed = actions.attempt(shelf.empty_trash, Runs().root)
    if freed is not None:
        actions.say(f"The trash is empty; {size(freed)} freed.")
