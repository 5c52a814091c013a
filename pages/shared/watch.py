"""A run while it is computed: where it stands, time left, the map filling in, cancel and resume."""

from __future__ import annotations

import streamlit as st

from copal_core.experiment import processes
from copal_core.figures import layers
from copal_core.figures.numbers import duration
from copal_core.store.folder import ACTIVE, RunState
from copal_core.store.run_store import RunStore
from pages.shared import actions, runs
from pages.shared.text import plain, show_problem


def panel(store: RunStore) -> None:
    """The run in the link, unless it is a recorded one, which has nothing to watch."""
    if store.recorded:
        return
    state = store.state()
    with st.container(border=True):
        st.markdown(f"**{plain(store.info.get('title') or 'Your run')}**")
        st.caption(plain(f"{store.id}: {', '.join(runs.methods_of(store))}"))
        if state.status not in ACTIVE:
            actions.say_outcome()
        if state.status in ACTIVE:
            _live(store)
        elif state.status == "done":
            _finished(store)
        else:
            _stopped(store, state)


@st.fragment(run_every=1)
def _live(store: RunStore) -> None:
    """Re-reads the run once a second; the whole page runs again when it is over."""
    state = store.state()
    if state.status not in ACTIVE:
        st.rerun()
    share = min(1.0, max(0.0, state.progress))
    st.progress(share, text=f"{100 * share:.0f} %: {plain(_where(store, state))}")
    actions.say_while_watching()
    with st.container(horizontal=True, vertical_alignment="center"):
        left = (
            f"About {duration(state.seconds_left)} left"
            if state.seconds_left is not None
            else "Time left: not known yet"
        )
        st.caption(left, width="content")
        waiting = store.cancel_requested()
        st.button(
            "Cancelling after this block" if waiting else "Cancel", key="cancel-run",
            on_click=actions.attempt, args=(processes.cancel, store),
            disabled=waiting, icon=":material/stop_circle:",
        )  # fmt: skip
    _filling_map(store, state)


def _filling_map(store: RunStore, state: RunState) -> None:
    """The sensitivity of the method at work, block by block as it is computed."""
    if not state.method or state.step < 1:
        return
    if state.method not in runs.mask_methods_of(store):
        st.caption("This method makes no mask to draw; what it cost appears once the run is finished.")
        return
    found = runs.table(store, "layers")
    table = layers.layer_table(found, state.method, state.step, "memory")
    colours = layers.colour_range("memory", table)
    st.caption(
        f"Mean score of each layer, {plain(state.method)} after {plain(runs.step_name(store, state.step))}: "
        f"{table['block'].nunique()} of {runs.blocks_of(store)} blocks"
    )
    figure = layers.layer_figure(table, "memory", colours, runs.blocks_of(store))
    st.plotly_chart(
        figure.update_layout(height=260, uirevision="live"),
        key="live-map",
        config={"displayModeBar": False},
        alt="Heatmap of the layers computed so far",
    )


def _finished(store: RunStore) -> None:
    st.markdown("Finished. Its link is in the address bar.")
    with st.container(horizontal=True, gap="medium"):
        st.page_link("pages/sensitivity/page.py", label="Sensitivity", icon=":material/grid_on:")
        st.page_link("pages/stasis/page.py", label="Stasis and forgetting", icon=":material/trending_up:")
        if runs.neuron_methods_of(store):
            st.page_link("pages/neurons/page.py", label="Neurons", icon=":material/share:")
        if len(runs.mask_methods_of(store) + runs.neuron_methods_of(store)) < len(store.config.methods):
            st.page_link(
                "pages/lowrank/page.py", label="Masks and low rank", icon=":material/compare_arrows:"
            )


def _stopped(store: RunStore, state: RunState) -> None:
    why = f": {state.message}" if state.message else ""
    show_problem(f"The run is {state.status}{why}")
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.button(
            "Resume",
            type="primary",
            key="resume-run",
            on_click=actions.attempt,
            args=(processes.start, store),
            icon=":material/play_arrow:",
            help="Goes on from the last finished block and gives the same numbers as without the stop.",
        )
        st.page_link("pages/sensitivity/page.py", label="Look at what there is", icon=":material/grid_on:")


def _where(store: RunStore, state: RunState) -> str:
    if not state.method:
        return state.message or state.phase or "starting"
    parts = [state.phase, state.method]
    if state.step:
        parts.append(f"domain {state.step} of {len(store.config.domains)}")
        parts.append(f"block {state.block + 1} of {runs.blocks_of(store)}")
    return ", ".join(part for part in parts if part)
